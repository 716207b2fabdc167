"""Uses KServe's gRPC client. Arguments: the server's gRPC address, its URL, and the descriptor."""

import asyncio
import sys
from pathlib import Path

import grpc
import httpx
import numpy as np
import same_messages
from kserve import InferenceGRPCClient, InferInput, InferRequest
from kserve.protocol.grpc import grpc_predict_v2_pb2, grpc_predict_v2_pb2_grpc
from kserve.protocol.infer_type import RequestedOutput

ADDRESS, BASE, DESCRIPTOR = sys.argv[1], f"http://{sys.argv[2]}", Path(sys.argv[4])
ADMIN = (("authorization", f"Bearer {sys.argv[3]}"),)
ROWS = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)


def request(binary: bool, **parameters) -> InferRequest:
    hidden = InferInput("hidden", list(ROWS.shape), "FP32")
    hidden.set_data_from_numpy(ROWS, binary_data=binary)
    wanted = [RequestedOutput("top_k_target"), RequestedOutput("top_k_prob")]
    return InferRequest("words", [hidden], request_id="7", parameters={"k": 2, **parameters},
                        request_outputs=wanted)  # fmt: skip


async def check_repository() -> None:
    """KServe's load and unload send the name of the model as another field than Triton's."""
    async with grpc.aio.insecure_channel(ADDRESS) as channel:
        stub = grpc_predict_v2_pb2_grpc.GRPCInferenceServiceStub(channel)
        unload = grpc_predict_v2_pb2.RepositoryModelUnloadRequest(model_name="plain")
        assert (await stub.RepositoryModelUnload(unload, metadata=ADMIN)).isUnloaded
        load = grpc_predict_v2_pb2.RepositoryModelLoadRequest(model_name="plain")
        answer = await stub.RepositoryModelLoad(load, metadata=ADMIN)
        assert (answer.model_name, answer.isLoaded) == ("plain", True)


async def main() -> None:
    assert same_messages.check(DESCRIPTOR, [grpc_predict_v2_pb2.DESCRIPTOR]) > 50
    client = InferenceGRPCClient(ADDRESS, retries=2, timeout=30)
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready("words")
    query = {"inputs": ROWS.tolist(), "k": 2}
    async with httpx.AsyncClient() as plain:
        v1 = (await plain.post(f"{BASE}/v1/models/words/top_k", json=query)).json()["results"]
    for binary in (True, False):
        answer = await client.infer(request(binary))
        assert (answer.model_name, answer.id) == ("words", "7")
        read = {output.name: output.as_numpy() for output in answer.outputs}
        assert read["top_k_target"].tolist() == [one["targets"] for one in v1]
        np.testing.assert_allclose(
            read["top_k_prob"], [one["probabilities"] for one in v1], rtol=1e-6
        )
    try:
        await client.infer(request(True, kk=1))
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "parameters: expected k" in error.details(), error.details()
    else:
        raise AssertionError("expected an error")
    await client.close()
    await check_repository()


asyncio.run(main())
print("done")
