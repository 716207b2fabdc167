"""Runs graphs through a running server: the /v1 routes, in requests that fit its limits."""

import http.client
import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np
import orjson

from hsoftmax.models.arrays import Array, Float32
from hsoftmax.scoring import BundleInfo, GraphRequest, ScoringError

_SECONDS = 120
_TRIES = 20
_OVERLOADED = (429, 503)
_LEAST_WAIT, _LONGEST_WAIT = 0.2, 60.0
_TASKS = {"target_log_prob", "log_probs", "top_k", "sample"}


@dataclass(frozen=True)
class RemoteGraphRunner:
    """A bundle of a server, in one version; every answer must come of the same digest."""

    base: str  # such as http://127.0.0.1:8000
    bundle_info: BundleInfo
    version: str
    key: str | None = None

    def __call__(self, request: GraphRequest) -> list[Array]:
        inputs = {"inputs": request.hidden, "version": self.version, "log": True}
        match request.graph:
            case "target_log_prob":
                counts = np.bincount(request.row, minlength=len(request.hidden))
                targets = np.split(request.target, np.cumsum(counts)[:-1])
                lists = self._ask("probabilities", {**inputs, "targets": targets})
                return [_floats([p for row in lists["log_probabilities"] for p in row])]
            case "log_probs":
                answer = self._ask("probabilities", inputs)
                return [np.array([_floats(row) for row in answer["log_probabilities"]])]
            case "top_k":
                task = request.task
                rows = self._ask("top_k", {**inputs, "k": task.k, "max_blocks": task.max_blocks})
                return _found(rows["results"], task.k)
            case _:
                drawn = {"num_samples": request.task.num_samples, "seed": request.seed}
                rows = self._ask("sample", {**inputs, **drawn})["results"]
                return [
                    np.array([row["targets"] for row in rows]),
                    np.array([_floats(row["log_probabilities"]) for row in rows]),
                ]

    def _ask(self, question: str, body: dict[str, Any]) -> Any:  # noqa: ANN401  the answer's JSON
        return ask(
            self.base,
            f"/v1/models/{quote(self.bundle_info.name, safe='')}/{question}",
            body,
            key=self.key,
            digest=self.bundle_info.digest,
        )


def connect(base: str, bundle: str, key: str | None) -> RemoteGraphRunner:
    """The server's bundle `NAME` or `NAME/VERSION`, and what must be known of it.

    Raises:
        ScoringError: no server there, or it does not serve such a bundle.
    """
    name, _, version = bundle.strip("/").partition("/")
    query = f"?version={quote(version, safe='')}" if version else ""
    path = f"/v1/models/{quote(name, safe='')}"
    info = ask(base, path + query, None, key=key)
    bundle_info = BundleInfo(
        name,
        info["digest"],
        info["hidden_size"] or 0,
        info["num_targets"] or 0,
        frozenset(info["tasks"]) & _TASKS,
    )
    if not info["labels"]:
        return RemoteGraphRunner(base, bundle_info, info["version"], key)
    # There is no list of labels to ask for, but the likeliest of all targets are all of them.
    every = {
        "inputs": [[0.0] * bundle_info.hidden_size],
        "k": bundle_info.num_targets,
        "version": info["version"],
    }
    (answer,) = ask(base, f"{path}/top_k", every, key=key)["results"]
    labels = dict(zip(answer["targets"], answer["labels"], strict=True))
    named = BundleInfo(
        name,
        bundle_info.digest,
        bundle_info.hidden_size,
        bundle_info.num_targets,
        bundle_info.graphs,
        tuple(labels[i] for i in range(bundle_info.num_targets)),
    )
    return RemoteGraphRunner(base, named, info["version"], key)


def ask(
    base: str, path: str, body: dict[str, Any] | None, *, key: str | None, digest: str = ""
) -> Any:  # noqa: ANN401
    """The answer; asked again for as long as the server says that it is busy.

    Raises:
        ScoringError: any other error, or another bundle than that of the digest.
    """
    content = None if body is None else orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    headers = {"content-type": "application/json"} | (
        {"authorization": f"Bearer {key}"} if key else {}
    )
    request = urllib.request.Request(base + path, content, headers)
    for tried in range(1, _TRIES + 1):
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
                _expect_digest(base, digest, answer.headers.get("x-hsoftmax-digest"))
                return orjson.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                if error.code not in _OVERLOADED or tried == _TRIES:
                    raise ScoringError(f"{base}{path}: {_sentence(error)}") from None
                time.sleep(_wait(error.headers.get("retry-after"), tried))
        except (OSError, http.client.HTTPException) as error:
            if tried >= 3:
                reason = getattr(error, "reason", error)
                raise ScoringError(f"{base}: expected an answer, got: {reason}") from None
            time.sleep(_LEAST_WAIT * 2**tried)
    raise AssertionError("unreachable")


def _wait(retry_after: str | None, tried: int) -> float:
    """What the server says, or longer each time."""
    if retry_after is not None and retry_after.isdigit():
        return min(float(retry_after), _LONGEST_WAIT)
    return float(min(_LEAST_WAIT * 2**tried, _LONGEST_WAIT))


def _sentence(error: urllib.error.HTTPError) -> str:
    try:
        return f"{error.code}: {json.loads(error.read())['error']}"
    except (ValueError, KeyError, TypeError):
        return f"{error.code}"


def _expect_digest(base: str, wanted: str, got: str | None) -> None:
    if wanted and got is not None and got != wanted:
        raise ScoringError(f"{base}: expected answers of bundle {wanted[:12]}, got {got[:12]}'s")


def _floats(values: list[float | None]) -> Float32:
    """JSON has no infinity: what is null had no probability at all."""
    return np.array([-np.inf if v is None else v for v in values], dtype=np.float32)


def _found(rows: list[dict[str, Any]], k: int) -> list[Array]:
    """As the graph gives it: what a search cut short has not found is not probable at all."""
    log_prob = np.full((len(rows), k), -np.inf, dtype=np.float32)
    target = np.zeros((len(rows), k), dtype=np.int64)
    for i, row in enumerate(rows):
        count = len(row["targets"])
        log_prob[i, :count], target[i, :count] = row["log_probabilities"], row["targets"]
    blocks = np.array([row["blocks"] for row in rows])
    return [log_prob, target, blocks, np.array([row["exact"] for row in rows])]
