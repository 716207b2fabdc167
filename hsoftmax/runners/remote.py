"""Runs graphs through a running server: the /v1 routes, in requests that fit its limits."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote

import numpy as np

from hsoftmax.client import Client, ClientError
from hsoftmax.client.calls import ModelAddress
from hsoftmax.models.arrays import Array, Float32, Int64
from hsoftmax.scoring import (
    BundleInfo,
    ErrorCode,
    GraphRequest,
    RowError,
    RowsRefused,
    halves,
)
from hsoftmax.scoring.label_search import MAX_PAGE_LABELS
from hsoftmax.scoring.task import k_of

from .remote_row_encoder import RemoteRowEncoder

_TIMEOUT_S = 120.0
_MAX_TRIES = 20
_TOO_LARGE = 413
_ROW_CODES = {"invalid_query", "logits_overflow"}
# The place of a row in the sentence of an error.
_ROW = re.compile(r"inputs row (?P<row>[0-9]+): (?P<rest>.*)", re.DOTALL)
_GRAPHS = {"target_log_prob", "log_probs", "top_k", "sample"}


@dataclass(frozen=True)
class RemoteGraphRunner:
    """Runs the graphs of one version of a server's bundle.

    Every response must come from the bundle with the digest in `bundle_info`.
    """

    client: Client
    bundle_info: BundleInfo
    version: str

    def __call__(self, request: GraphRequest) -> list[Array]:
        """Runs a graph. Raises RowsRefused for wrong rows, ClientError for other refusals."""
        try:
            return self._send(request)
        except ClientError as error:
            if error.status == _TOO_LARGE and len(request.hidden) > 1:
                return self._run_halves(request)
            refused = _refused_rows(error)
            if not refused:
                raise
            raise RowsRefused(refused) from None

    def close(self) -> None:
        """Closes the connections."""
        self.client.close()

    def _run_halves(self, request: GraphRequest) -> list[Array]:
        first, second = halves(request)
        outputs = self(first)
        try:
            more = self(second)
        except RowsRefused as refused:
            errors = {len(first.hidden) + i: e for i, e in refused.row_errors.items()}
            raise RowsRefused(errors) from None
        return [np.concatenate(parts) for parts in zip(outputs, more, strict=True)]

    def _send(self, request: GraphRequest) -> list[Array]:
        inputs = {"inputs": request.hidden, "version": self.version, "log": True}
        match request.graph:
            case "target_log_prob":
                counts = np.bincount(request.row, minlength=len(request.hidden))
                lists = np.split(request.target, np.cumsum(counts)[:-1])
                targets = [self._names(one) for one in lists]
                response = self._post("probabilities", {**inputs, "targets": targets})
                return [_log_probs([p for row in response["log_probabilities"] for p in row])]
            case "log_probs":
                response = self._post("probabilities", inputs)
                return [np.array([_log_probs(row) for row in response["log_probabilities"]])]
            case "top_k":
                k = k_of(request.task, self.bundle_info)
                limits = {"k": k, "max_blocks": request.task.max_blocks}
                return _top_k_outputs(self._post("top_k", {**inputs, **limits})["results"], k)
            case _:
                rows = self._post("sample", {**inputs, **_draws(request)})["results"]
                return [
                    np.array([row["targets"] for row in rows]),
                    np.array([_log_probs(row["log_probabilities"]) for row in rows]),
                ]

    def _names(self, targets: Int64) -> Int64 | list[int | str]:
        """Returns the targets as a query gives them, with the labels of inner nodes."""
        info = self.bundle_info
        if not len(targets) or targets.max() < info.num_targets:
            return targets
        return [t if t < info.num_targets else info.all_labels[t] for t in targets.tolist()]

    def _post(self, route: str, body: dict[str, Any]) -> Any:  # noqa: ANN401  the response's JSON
        path = f"{_model_path(self.bundle_info.name)}/{route}"
        return self.client.post(path, body, digest=self.bundle_info.digest)


def connect(base: str, bundle: str, key: str | None) -> RemoteGraphRunner:
    """Connects to the server's bundle `NAME` or `NAME/VERSION`.

    Raises:
        ClientError: there is no server, or it has no such bundle.
    """
    client = Client(base, api_key=key, timeout_s=_TIMEOUT_S, max_tries=_MAX_TRIES)
    name, _, version = bundle.strip("/").partition("/")
    query = f"?version={quote(version, safe='')}" if version else ""
    model = client.get(_model_path(name) + query)
    hidden_size, num_targets = model["hidden_size"] or 0, model["num_targets"] or 0
    labels = None
    if model["labels"]:
        labels = _read_labels(client, name, model["version"], hidden_size, num_targets)
    bundle_info = BundleInfo(
        name,
        model["digest"],
        hidden_size,
        num_targets,
        frozenset(model["tasks"]) & _GRAPHS,
        labels,
        max_log_prob=math.inf,  # the server has limited its answers already
        native=frozenset(model.get("native", ())),
        label_prefix=model.get("label_prefix", ""),  # older servers have none
        inner_labels=_read_inner_labels(client, name, model["version"], num_targets)
        if model.get("inner_nodes")
        else (),
        encoder=_row_encoder(client, name, model),
    )
    return RemoteGraphRunner(client, bundle_info, model["version"])


def _row_encoder(client: Client, name: str, model: Mapping[str, Any]) -> RemoteRowEncoder | None:
    """Returns the encoder of rows that are no numbers; None if the server's bundle takes none."""
    kinds = model.get("inputs", ())  # older servers have none
    takes_text, takes_named = "text" in kinds, "named" in kinds
    if not (takes_text or takes_named):
        return None
    address = ModelAddress(name, model["version"])
    return RemoteRowEncoder(client, address, model["digest"], takes_text, takes_named)


def _read_labels(
    client: Client, name: str, version: str, hidden_size: int, num_targets: int
) -> tuple[str, ...]:
    """Reads all labels, as the top k targets of any row with k = num_targets."""
    body = {"inputs": [[0.0] * hidden_size], "k": num_targets, "version": version}
    (row,) = client.post(f"{_model_path(name)}/top_k", body)["results"]
    label_of_target = dict(zip(row["targets"], row["labels"], strict=True))
    return tuple(label_of_target[target] for target in range(num_targets))


def _read_inner_labels(
    client: Client, name: str, version: str, num_targets: int
) -> tuple[str, ...]:
    """Reads the labels of inner nodes, which follow those of the targets."""
    labels: list[str] = []
    start: int | None = num_targets
    while start is not None:
        query = f"start={start}&limit={MAX_PAGE_LABELS}&version={version}"
        page = client.get(f"{_model_path(name)}/labels?{query}")
        labels += page["labels"]
        start = page["next"]
    return tuple(labels)


def _refused_rows(error: ClientError) -> dict[int, RowError]:
    """Returns the error of the row that the service refused, by index; empty if it is no row's."""
    row = _ROW.match(error.sentence) if error.code in _ROW_CODES else None
    if row is None:
        return {}
    return {int(row["row"]): RowError(cast(ErrorCode, error.code), f"input: {row['rest']}")}


def _draws(request: GraphRequest) -> dict[str, int]:
    """Returns the fields of a query of `sample`; older servers know no `first_row`."""
    draws = {"num_samples": request.task.num_samples, "seed": request.seed}
    return {**draws, "first_row": request.first_row} if request.first_row else draws


def _model_path(name: str) -> str:
    return f"/v1/models/{quote(name, safe='')}"


def _log_probs(values: list[float | None]) -> Float32:
    """Returns float32 with -inf for null, as JSON has no infinity."""
    return np.array([-np.inf if v is None else v for v in values], dtype=np.float32)


def _top_k_outputs(rows: list[dict[str, Any]], k: int) -> list[Array]:
    """Returns the graph's outputs. A search that was cut short has -inf for the rest, as there."""
    log_prob = np.full((len(rows), k), -np.inf, dtype=np.float32)
    target = np.zeros((len(rows), k), dtype=np.int64)
    for i, row in enumerate(rows):
        count = len(row["targets"])
        log_prob[i, :count], target[i, :count] = row["log_probabilities"], row["targets"]
    blocks = np.array([row["blocks"] for row in rows])
    return [log_prob, target, blocks, np.array([row["exact"] for row in rows])]
