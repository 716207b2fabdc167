"""Fixtures: a gRPC server over the small repository in a thread of its own, and calls to it."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from hsoftmax.service import Settings, create_app
from hsoftmax.service.context import AppContext, context_of
from hsoftmax.service.grpc.inference_methods import inference_methods
from hsoftmax.service.grpc.messages import SERVICE, message_type
from hsoftmax.service.grpc.method import Method
from hsoftmax.service.grpc.server import GrpcServer
from hsoftmax.service.logging import json_log
from hsoftmax.service.middleware.tracing import Tracer
from tests.service.raw_tensors import array_of, datatype_and_shape, raw_bytes

TIMEOUT_S = 20


class Service:
    """A gRPC server that runs until `close`; its calls come from the thread of the test."""

    def __init__(
        self,
        repository: Path,
        methods: Iterable[Method] = (),
        tracer: Tracer | None = None,
        **settings,
    ) -> None:
        app_settings = Settings(repository=repository, threads=1, grpc_port=0, **settings)
        context = context_of(create_app(app_settings, log=json_log("error")))
        self.context: AppContext = replace(context, tracer=tracer)
        self.context.load()
        self._methods = list(methods)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.server: GrpcServer = self.run(self._start())
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.server.port}", options)

    def run(self, coroutine) -> Any:
        """Run a coroutine in the loop of the server."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(TIMEOUT_S)

    def call(self, name: str, request=None, /, *, metadata=(), timeout=TIMEOUT_S, **fields) -> Any:
        """Call a method of the inference service; the request is a message or its fields."""
        if request is None:
            request = message_type(f"{name}Request")(**fields)
        response_type = message_type(f"{name}Response")
        return self.unary(f"/{SERVICE}/{name}", response_type)(
            request, metadata=metadata, timeout=timeout
        )

    def unary(self, path: str, response_type: Any) -> grpc.UnaryUnaryMultiCallable:
        return self.channel.unary_unary(path, _serialize, response_type.FromString)

    def stream(self, path: str, response_type: Any) -> grpc.StreamStreamMultiCallable:
        return self.channel.stream_stream(path, _serialize, response_type.FromString)

    def close(self) -> None:
        self.channel.close()
        self.run(self.server.stop(1))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.context.engine.close()

    async def _start(self) -> GrpcServer:
        server = GrpcServer(self.context, [*inference_methods(), *self._methods])
        await server.start()
        return server


def _serialize(message: Any) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


@contextmanager
def serving_grpc(repository: Path, methods: Iterable[Method] = (), **settings) -> Iterator[Service]:
    service = Service(repository, methods, **settings)
    try:
        yield service
    finally:
        service.close()


@pytest.fixture(scope="session")
def service(repository) -> Iterator[Service]:
    with serving_grpc(repository) as service:
        yield service


def expect_status(code: grpc.StatusCode, sentence: str = "") -> Any:
    """Return a context manager that expects an error of a call, without internals in it."""
    return _ExpectedStatus(code, sentence)


class _ExpectedStatus:
    def __init__(self, code: grpc.StatusCode, sentence: str) -> None:
        self._expected = (code, sentence)
        self.trailers: dict[str, str] = {}

    def __enter__(self) -> "_ExpectedStatus":
        return self

    def __exit__(self, error_type, error, traceback) -> bool:
        code, sentence = self._expected
        assert isinstance(error, grpc.RpcError), "the call was answered"
        assert (error.code(), sentence in error.details()) == (code, True), error
        for inside in ("/tmp", "Traceback", "Error(", ".py", "onnx"):
            assert inside not in error.details()
        self.trailers = dict(error.trailing_metadata() or ())
        return True


def raw_request(model: str = "words", *outputs: str, version: str = "", **inputs) -> Any:
    """Build a request with raw tensors, from arrays and from lists of texts."""
    request = _request(model, outputs, version)
    for name, value in inputs.items():
        datatype, shape = datatype_and_shape(value)
        request.inputs.add(name=name, datatype=datatype, shape=shape)
        request.raw_input_contents.append(raw_bytes(value))
    return request


def typed_request(model: str = "words", *outputs: str, version: str = "", **inputs) -> Any:
    """Build a request with typed contents, from arrays and from lists of texts."""
    request = _request(model, outputs, version)
    for name, value in inputs.items():
        datatype, shape = datatype_and_shape(value)
        tensor = request.inputs.add(name=name, datatype=datatype, shape=shape)
        texts = isinstance(value, list)
        elements = [text.encode() for text in value] if texts else value.ravel().tolist()
        getattr(tensor.contents, FIELDS[datatype]).extend(elements)
    return request


FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def _request(model: str, outputs: Iterable[str], version: str) -> Any:
    request = message_type("ModelInferRequest")(model_name=model, model_version=version)
    for name in outputs:
        request.outputs.add(name=name)
    return request


def arrays(response: Any) -> dict[str, Any]:
    """Return the outputs of a response by name, each as an array."""
    raw = list(response.raw_output_contents)
    found = {}
    for place, output in enumerate(response.outputs):
        typed = list(getattr(output.contents, FIELDS[output.datatype]))
        content = raw[place] if raw else typed
        found[output.name] = array_of(output.datatype, output.shape, content)
    return found


def until(is_true: Callable[[], bool]) -> None:
    """Wait until something is so, ten seconds at most."""
    deadline = time.monotonic() + 10
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
