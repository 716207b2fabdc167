"""What the service is compared with, each an ASGI app on the same bundle.

`no_op` is FastAPI that does nothing, `bare` ASGI that does nothing, `naive` what everybody writes
first: FastAPI, pydantic and ONNX Runtime. The bundle is $BENCHMARK_BUNDLE.
"""

import os
from pathlib import Path

import numpy as np
import onnxruntime
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

_CONSTANT = b'{"probabilities":[0.5]}'
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_CONSTANT))]

no_op = FastAPI()
naive = FastAPI()


class Query(BaseModel):
    """As the service's own."""

    inputs: list[list[float]]
    targets: list[int] | None = None


class Answer(BaseModel):
    """As the service's own."""

    probabilities: list[float] | list[list[float]]


@no_op.post("/v1/models/random/probabilities")
async def do_nothing() -> dict[str, list[float]]:
    return {"probabilities": [0.5]}


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """A constant, once the body has been read."""
    if scope["type"] == "http":
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        await send({"type": "http.response.body", "body": _CONSTANT})


@naive.post("/v1/models/random/probabilities")
async def answer(query: Query) -> Answer:
    hidden = np.array(query.inputs, dtype=np.float32)
    if query.targets is None:
        (log_probs,) = _session("log_probs").run(None, {"hidden": hidden})
    else:
        row, target = np.arange(len(hidden)), np.array(query.targets)
        feeds = {"hidden": hidden, "row": row, "target": target}
        (log_probs,) = _session("target_log_prob").run(None, feeds)
    return Answer(probabilities=np.exp(log_probs).tolist())


_SESSIONS: dict[str, onnxruntime.InferenceSession] = {}


def _session(task: str) -> onnxruntime.InferenceSession:
    if task not in _SESSIONS:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        path = Path(os.environ["BENCHMARK_BUNDLE"]) / f"{task}.onnx"
        _SESSIONS[task] = onnxruntime.InferenceSession(path, options)
    return _SESSIONS[task]
