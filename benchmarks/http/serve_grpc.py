"""Serves `infer` over gRPC with the least that answers: `grpc.aio`, protobuf and ONNX Runtime.

    python -m benchmarks.http.serve_grpc PORT HEALTH_PORT

It has no checks, limits, deadlines, log or metrics. The bundle is $BENCHMARK_BUNDLE. An HTTP server
on HEALTH_PORT tells the benchmark that it is ready.
"""

import asyncio
import sys

import grpc
import uvicorn

from hsoftmax.service.grpc.messages import ModelInferRequest, ModelInferResponse

from .apps import bare, raw_target_probs

_METHOD = "ModelInfer"
_SERVICE = "inference.GRPCInferenceService"


async def _infer(data: bytes, context: object) -> bytes:
    request = ModelInferRequest.FromString(data)
    hidden, target = request.raw_input_contents
    found = raw_target_probs(hidden, target)
    response = ModelInferResponse(model_name=request.model_name, model_version="1")
    response.outputs.add(name=request.outputs[0].name, datatype="FP64", shape=found.shape)
    response.raw_output_contents.append(found.tobytes())
    return bytes(response.SerializeToString())


async def _serve(port: int, health_port: int) -> None:
    server = grpc.aio.server()
    handlers = {_METHOD: grpc.unary_unary_rpc_method_handler(_infer)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(_SERVICE, handlers)])
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    config = uvicorn.Config(bare, port=health_port, access_log=False, log_level="warning")
    await uvicorn.Server(config).serve()
    await server.stop(0)


def main() -> None:
    port, health_port = map(int, sys.argv[1:])
    asyncio.run(_serve(port, health_port))


if __name__ == "__main__":
    main()
