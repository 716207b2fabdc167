"""Fixtures: a context over the small repository, and a function that answers tensor requests."""

import asyncio
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from hsoftmax.service import Settings, create_app
from hsoftmax.service.context import AppContext, context_of
from hsoftmax.service.http.request_context import RequestContext
from hsoftmax.service.inference.tensors.infer import infer
from hsoftmax.service.inference.tensors.request import InferRequest, InferResult, RequestedOutput
from hsoftmax.service.inference.tensors.tensor import Tensor
from hsoftmax.service.logging import json_log

_DATATYPES = {
    "float32": "FP32", "float64": "FP64", "float16": "FP16", "int32": "INT32", "int64": "INT64",
    "uint64": "UINT64", "bool": "BOOL",
}  # fmt: skip


def tensor(name: str, data: object) -> Tensor:
    """A tensor of an array, or of a list of texts."""
    if isinstance(data, list):
        return Tensor(name, "BYTES", (len(data),), [text.encode() for text in data])
    array = np.asarray(data)
    return Tensor(name, _DATATYPES[array.dtype.name], array.shape, array)


@pytest.fixture(scope="module")
def context(repository) -> Iterator[AppContext]:
    app = create_app(Settings(repository=repository, threads=1), log=json_log("error"))
    context = context_of(app)
    context.load()
    yield context
    context.engine.close()


@pytest.fixture
def ask(context) -> Callable[..., InferResult]:
    """Function that answers a request of these inputs, outputs and parameters."""

    def ask(inputs: dict, *outputs: str | RequestedOutput, model="words", **parameters):
        named = {name: tensor(name, data) for name, data in inputs.items()}
        wanted = [RequestedOutput(one) if isinstance(one, str) else one for one in outputs]

        async def read_inputs() -> dict:
            return named

        names = tuple(named)
        request = InferRequest(model, names, read_inputs, tuple(wanted), parameters, id="7")
        request_context = RequestContext("id", {}, 0.0)
        return asyncio.run(infer(request, context, request_context, route="/test"))

    return ask
