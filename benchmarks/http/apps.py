"""ASGI apps that the service is compared with. Those that compute use the same bundle.

`no_op` is a FastAPI app and `bare` a plain ASGI app, both without computation. `naive` is a usual
first version: FastAPI, pydantic and ONNX Runtime. `lean` is a minimal one: ASGI, msgspec, orjson
and ONNX Runtime, without checks, limits, log or metrics. The bundle is $BENCHMARK_BUNDLE.
"""

import io
import os
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import orjson
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from hsoftmax.models.arrays import Float32

_CONSTANT = b'{"probabilities":[0.5]}'
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_CONSTANT))]

no_op = FastAPI()
naive = FastAPI()


class Query(BaseModel):
    """Query of `naive`, with the fields of the service's query."""

    inputs: list[list[float]]
    targets: list[int] | None = None


class Response(BaseModel):
    """Response of `naive`, with a field of the service's response."""

    probabilities: list[float] | list[list[float]]


@no_op.post("/v1/models/random/probabilities")
async def do_nothing() -> dict[str, list[float]]:
    return {"probabilities": [0.5]}


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """Send a constant response after the body was read."""
    if scope["type"] == "http":
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        await send({"type": "http.response.body", "body": _CONSTANT})


class LeanQuery(msgspec.Struct):
    """Query of `lean`, with the fields of the service's query."""

    inputs: list[list[float]]
    targets: list[int] | None = None


_DECODER = msgspec.json.Decoder(LeanQuery)


async def lean(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a JSON query without any checks."""
    if scope["type"] != "http":
        return
    body = b""
    while (message := await receive()).get("more_body"):
        body += message["body"]
    log_probs = _log_probs(_DECODER.decode(body + message["body"]))
    response = orjson.dumps({"probabilities": np.exp(log_probs)}, option=orjson.OPT_SERIALIZE_NUMPY)
    length = (b"content-length", b"%d" % len(response))
    await send({"type": "http.response.start", "status": 200, "headers": [_HEADERS[0], length]})
    await send({"type": "http.response.body", "body": response})


async def lean_npy(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a query with .npy bodies and the target in the URL, without any checks."""
    if scope["type"] != "http":
        return
    body = b""
    while (message := await receive()).get("more_body"):
        body += message["body"]
    hidden = np.lib.format.read_array(io.BytesIO(body + message.get("body", b"")))
    target = [int(scope["query_string"].rpartition(b"=")[2] or 0)]
    file = io.BytesIO()
    np.lib.format.write_array(file, np.exp(_target_log_probs(hidden, target)))
    response = file.getvalue()
    headers = [(b"content-type", b"application/x-npy"), (b"content-length", b"%d" % len(response))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": response})


@naive.post("/v1/models/random/probabilities")
async def compute(query: Query) -> Response:
    return Response(probabilities=np.exp(_log_probs(query)).tolist())


def _log_probs(query: Query | LeanQuery) -> Float32:
    hidden = np.array(query.inputs, dtype=np.float32)
    if query.targets is None:
        (log_probs,) = _session("log_probs").run(None, {"hidden": hidden})
    else:
        log_probs = _target_log_probs(hidden, query.targets)
    found: Float32 = log_probs
    return found


def _target_log_probs(hidden: Float32, targets: list[int]) -> Float32:
    row, target = np.arange(len(hidden)), np.array(targets)
    feeds = {"hidden": hidden, "row": row, "target": target}
    found: Float32 = _session("target_log_prob").run(None, feeds)[0]
    return found


_SESSIONS: dict[str, onnxruntime.InferenceSession] = {}


def _session(task: str) -> onnxruntime.InferenceSession:
    if task not in _SESSIONS:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        path = Path(os.environ["BENCHMARK_BUNDLE"]) / f"{task}.onnx"
        _SESSIONS[task] = onnxruntime.InferenceSession(path, options)
    return _SESSIONS[task]
