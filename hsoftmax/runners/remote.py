"""Runs graphs through a running server: the /v1 routes, in requests that fit its limits."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast
from urllib.parse import quote

import numpy as np

from hsoftmax.client import Client, ClientError
from hsoftmax.featurizers import TextInput
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

_TIMEOUT_S = 120.0
_MAX_TRIES = 20
_TOO_LARGE = 413
_ROW_CODES = {"invalid_query", "logits_overflow"}
# The place of a row in the sentence of an error.
_ROW = re.compile(r"inputs(?P<name>\.\S+)? row (?P<row>[0-9]+): (?P<rest>.*)", re.DOTALL)
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
        if not request.texts:
            return self._run(request)
        of_texts = self._run_texts(request)
        if len(request.texts) == len(request.hidden):
            return of_texts
        of_numbers = self._run(replace(request, texts={}))
        return _merged(of_texts, of_numbers, request)

    def close(self) -> None:
        """Closes the connections."""
        self.client.close()

    def _run_texts(self, request: GraphRequest) -> list[Array]:
        """Runs the rows of text. The other rows get a text too, so that all keep their places."""
        first = min(request.texts)
        texts = {i: request.texts.get(i, request.texts[first]) for i in range(len(request.hidden))}
        try:
            return self._run(replace(request, texts=texts))
        except RowsRefused as refused:
            errors = {i if i in request.texts else first: e for i, e in refused.row_errors.items()}
            raise RowsRefused({**errors, **self._wrong_texts(request.texts)}) from None

    def _wrong_texts(self, texts: Mapping[int, TextInput]) -> dict[int, RowError]:
        """Returns the errors of all wrong texts, which a stream has in the places of their rows.

        The refusal of a query names its first wrong row only.
        """
        model = self.client.model(self.bundle_info.name, self.version)
        rows = ({"input": text, "target": 0} for text in texts.values())
        records = model.score(rows, rows_at_once=len(texts))
        return {
            i: RowError(cast(ErrorCode, record["code"]), str(record["error"]))
            for i, record in zip(texts, records, strict=True)
            if "error" in record
        }

    def _run(self, request: GraphRequest) -> list[Array]:
        """Runs rows that are all texts or all numbers; in halves where they are too large."""
        try:
            return self._send(request)
        except ClientError as error:
            if error.status == _TOO_LARGE and len(request.hidden) > 1:
                return self._run_halves(request)
            refused = _refused_rows(error, request)
            if not refused:
                raise
            raise RowsRefused(refused) from None

    def _run_halves(self, request: GraphRequest) -> list[Array]:
        first, second = halves(request)
        outputs = self._run(first)
        try:
            more = self._run(second)
        except RowsRefused as refused:
            errors = {len(first.hidden) + i: e for i, e in refused.row_errors.items()}
            raise RowsRefused(errors) from None
        return [np.concatenate(parts) for parts in zip(outputs, more, strict=True)]

    def _send(self, request: GraphRequest) -> list[Array]:
        rows = [text for _, text in sorted(request.texts.items())] or request.hidden
        inputs = {"inputs": rows, "version": self.version, "log": True}
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
        server_reads_text=_reads_text(model),
    )
    return RemoteGraphRunner(client, bundle_info, model["version"])


def _reads_text(model: Mapping[str, Any]) -> bool:
    """Returns True if the server makes one input of a text; some encoders make one a position."""
    kinds, encoder = model.get("inputs", ()), model.get("encoder")  # older servers have neither
    return "text" in kinds and (encoder is None or encoder["position"] != "each")


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


def _refused_rows(error: ClientError, request: GraphRequest) -> dict[int, RowError]:
    """Returns the error of the row that the service refused, by index; empty if it is no row's."""
    row = _ROW.match(error.sentence) if error.code in _ROW_CODES else None
    if row is not None:
        sentence = f"input{row['name'] or ''}: {row['rest']}"
        return {int(row["row"]): RowError(cast(ErrorCode, error.code), sentence)}
    if error.status == _TOO_LARGE and request.texts and len(request.hidden) == 1:
        return {0: RowError("too_large", error.sentence)}
    return {}


def _merged(of_texts: list[Array], of_numbers: list[Array], request: GraphRequest) -> list[Array]:
    """Returns the outputs of the rows of text, and those of the other rows, in their places."""
    is_text = np.zeros(len(request.hidden), dtype=np.bool_)
    is_text[list(request.texts)] = True
    if request.graph == "target_log_prob":
        is_text = is_text[request.row]
    for texts, numbers in zip(of_texts, of_numbers, strict=True):
        numbers[is_text] = texts[is_text]
    return of_numbers


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
