"""ASGI apps that the service is compared with. Those that compute use the same bundle.

`no_op` is a FastAPI app and `bare` a plain ASGI app, both without computation. `naive` is a usual
first version: FastAPI, pydantic and ONNX Runtime. `lean` is a minimal one: ASGI, msgspec, orjson
and ONNX Runtime, without checks, limits, log or metrics. `lean_npy` and `lean_infer` are the same
for .npy bodies and for raw tensors of the Open Inference Protocol, `lean_text` for texts, with the
service's featurizer and sessions. The bundle is $BENCHMARK_BUNDLE.
"""

import io
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import orjson
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from hsoftmax.bundle import open_bundle, read_labels
from hsoftmax.featurizers import Featurizer, featurize, open_featurizer
from hsoftmax.models.arrays import Float32, Float64
from hsoftmax.runtime.sessions import Session, choose_device, open_sessions

_CONSTANT = b'{"probabilities":[0.5]}'
_NUMPY = orjson.OPT_SERIALIZE_NUMPY
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


async def _read_body(receive: Receive) -> bytes:
    """Return the whole body of a request."""
    body = b""
    while (message := await receive()).get("more_body"):
        body += message["body"]
    whole: bytes = body + message.get("body", b"")
    return whole


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


class LeanTensor(msgspec.Struct):
    """Input or output of `lean_infer`, with the fields of the protocol."""

    name: str
    shape: list[int] = []
    datatype: str = ""
    parameters: dict[str, int | bool] = {}


class LeanInfer(msgspec.Struct):
    """Request of `lean_infer`, with the fields of the protocol."""

    inputs: list[LeanTensor]
    outputs: list[LeanTensor]


_INFER_DECODER = msgspec.json.Decoder(LeanInfer)
_RAW_TYPE = (b"content-type", b"application/octet-stream")


async def lean_infer(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a query of raw tensors, a row and a target, without any checks."""
    if scope["type"] != "http":
        return
    body = await _read_body(receive)
    head, raw = _infer(body, dict(scope["headers"])) if body else (b"{}", b"")
    headers = [_RAW_TYPE, (b"content-length", b"%d" % (len(head) + len(raw))),
               (b"inference-header-content-length", b"%d" % len(head))]  # fmt: skip
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": head + raw})


def _infer(body: bytes, headers: dict[bytes, bytes]) -> tuple[bytes, bytes]:
    """Return the JSON and the raw bytes of a response."""
    length = int(headers[b"inference-header-content-length"])
    request = _INFER_DECODER.decode(memoryview(body)[:length])
    size = request.inputs[0].parameters["binary_data_size"]
    found = raw_target_probs(body[length : length + size], body[length + size :])
    output = {"name": request.outputs[0].name, "datatype": "FP64", "shape": found.shape,
              "parameters": {"binary_data_size": found.nbytes}}  # fmt: skip
    response = {"model_name": "random", "model_version": "1", "outputs": [output]}
    return orjson.dumps(response), found.tobytes()


def raw_target_probs(hidden: bytes, target: bytes) -> Float64:
    """Return the probabilities of raw rows and targets, one target a row."""
    targets = np.frombuffer(target, np.int64)
    rows = np.frombuffer(hidden, np.float32).reshape(len(targets), -1)
    feeds = {"hidden": rows, "row": np.arange(len(rows)), "target": targets}
    log_probs = _session("target_log_prob").run(None, feeds)[0]
    found: Float64 = np.exp(log_probs, dtype=np.float64)
    return found


class LeanTextQuery(msgspec.Struct):
    """Query of `lean_text`, with the fields of the service's query."""

    inputs: list[str]
    k: int


_TEXT_DECODER = msgspec.json.Decoder(LeanTextQuery)


async def lean_text(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer the likeliest targets of texts, without any checks."""
    if scope["type"] != "http":
        return
    body = await _read_body(receive)
    response = orjson.dumps(_top_k(_TEXT_DECODER.decode(body)) if body else {}, option=_NUMPY)
    length = (b"content-length", b"%d" % len(response))
    await send({"type": "http.response.start", "status": 200, "headers": [_HEADERS[0], length]})
    await send({"type": "http.response.body", "body": response})


def _top_k(query: LeanTextQuery) -> dict[str, object]:
    bundle = _text_bundle()
    hidden = featurize(bundle.featurizer, query.inputs).hidden
    feeds = {"hidden": hidden, "k": np.array([query.k]), "max_blocks": np.array([0])}
    log_prob, target, _, _ = bundle.top_k.run(feeds)
    rows = zip(target.tolist(), np.exp(log_prob), strict=True)
    return {"results": [
        {"targets": some, "labels": [bundle.labels[t] for t in some], "probabilities": values}
        for some, values in rows
    ]}  # fmt: skip


@dataclass(frozen=True)
class _TextBundle:
    featurizer: Featurizer
    top_k: Session
    labels: tuple[str, ...]


@cache
def _text_bundle() -> _TextBundle:
    opened = open_bundle(Path(os.environ["BENCHMARK_BUNDLE"]), check_hashes=False)
    sessions = open_sessions(opened, choose_device("cpu", 1))
    featurizer, labels = open_featurizer(opened), read_labels(opened)
    assert featurizer is not None
    assert labels is not None
    return _TextBundle(featurizer, sessions["top_k"], labels)


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
