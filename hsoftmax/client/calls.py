"""The call of each method of a model: its request, and how its response becomes a result.

Every query asks for log-probabilities in float32, from which probabilities are computed here in
float64: so a tiny one does not become zero on the way, and results equal those in process.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from hsoftmax.inputs import Inputs, Targets, are_listed, as_matrix, plain_targets
from hsoftmax.models.arrays import Array, Float32
from hsoftmax.results import (
    LabelPage,
    ModelInfo,
    Samples,
    TopK,
    from_log,
    log_prob_array,
    model_info,
    samples,
    top_k_row,
)

from .call import JSON, NPY, Call, Request, Response, get, model_path, post_json
from .npy import from_npy, to_npy

_MAX_PARAMETER_CHARS = 4096  # of all targets in a URL; more travel in a body of JSON


@dataclass(frozen=True)
class ModelAddress:
    """The name of a model, and its version; None is the highest that is served."""

    name: str
    version: str | None = None

    @property
    def path(self) -> str:
        return model_path(self.name)

    @property
    def params(self) -> tuple[tuple[str, str], ...]:
        return () if self.version is None else (("version", self.version),)


def models() -> Call[tuple[ModelInfo, ...]]:
    return Call(get("/v1/models"), lambda r: tuple(map(model_info, r.json()["models"])))


def describe(model: ModelAddress) -> Call[ModelInfo]:
    return Call(get(model.path, *model.params), lambda r: model_info(r.json()))


def probabilities(
    model: ModelAddress, inputs: Inputs, targets: Targets, log: bool
) -> Call[Array | list[Array]]:
    """The answer has the shape of the targets: an array, or a list of arrays for lists."""
    listed, plain = are_listed(targets), plain_targets(targets)
    matrix = as_matrix(inputs)
    shape = targets.shape if isinstance(targets, np.ndarray) else None
    params = None if matrix is None else _target_params(plain, listed, len(matrix))
    if matrix is None or params is None:
        fields = {"targets": plain}
        request = _post(model, "probabilities", inputs, fields, accept=JSON, as_json=True)
        return Call(request, partial(_read_pairs, listed=listed, shape=shape, log=log))
    request = _post_matrix(model, "probabilities", matrix, (*params, ("log", "true")), accept=NPY)
    return Call(request, partial(_read_pair_matrix, listed=listed, shape=shape, log=log))


def distribution(model: ModelAddress, inputs: Inputs, log: bool) -> Call[Array]:
    request = _post(model, "probabilities", inputs, {}, accept=NPY)
    return Call(request, partial(_read_matrix, log=log))


def clusters(model: ModelAddress, inputs: Inputs, log: bool) -> Call[Array]:
    return Call(_post(model, "clusters", inputs, {}, accept=NPY), partial(_read_matrix, log=log))


def top_k(
    model: ModelAddress,
    inputs: Inputs,
    k: int | None,
    threshold: float | None,
    max_blocks: int,
    log: bool,
) -> Call[list[TopK]]:
    fields = {"k": k, "threshold": threshold, "max_blocks": max_blocks or None}
    request = _post(model, "top_k", inputs, fields, accept=JSON)
    return Call(request, lambda r: [top_k_row(row, log) for row in r.json()["results"]])


def sample(
    model: ModelAddress, inputs: Inputs, num_samples: int, seed: int | None, log: bool
) -> Call[Samples]:
    fields = {"num_samples": num_samples, "seed": seed}
    request = _post(model, "sample", inputs, fields, accept=JSON)
    return Call(request, lambda r: samples(r.json(), log))


def labels(
    model: ModelAddress, search: str, prefix: str, start: int, limit: int
) -> Call[LabelPage]:
    texts = tuple((name, text) for name, text in (("search", search), ("prefix", prefix)) if text)
    page = (("start", str(start)), ("limit", str(limit)))
    return Call(get(f"{model.path}/labels", *texts, *page, *model.params), _read_labels)


def labels_of(model: ModelAddress, targets: Sequence[int] | Array) -> Iterator[Call[LabelPage]]:
    """Yields the calls that together look up the labels of all targets, in order."""
    texts = [str(int(target)) for target in targets]
    for some in _in_urls(texts):
        ids = ("ids", ",".join(some))
        yield Call(get(f"{model.path}/labels", ids, *model.params), _read_labels)


def targets_of(model: ModelAddress, labels: Sequence[str]) -> Iterator[Call[LabelPage]]:
    """Yields the calls that together look up the targets of all labels, in order."""
    for some in _in_urls(labels):
        params = [("label", label) for label in some]
        yield Call(get(f"{model.path}/labels", *params, *model.params), _read_labels)


def _in_urls(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yields the texts in parts that are short enough for a URL."""
    part: list[str] = []
    room = _MAX_PARAMETER_CHARS
    for text in texts:
        length = 3 * len(text.encode()) + len("&label=")  # if each byte is escaped
        if part and length > room:
            yield part
            part, room = [], _MAX_PARAMETER_CHARS
        part.append(text)
        room -= length
    if part:
        yield part


def _post(
    model: ModelAddress,
    route: str,
    inputs: Inputs,
    fields: Mapping[str, Any],
    *,
    accept: str,
    as_json: bool = False,
) -> Request:
    """Returns the query about these inputs: a matrix with URL parameters, or a body of JSON."""
    given = {name: value for name, value in fields.items() if value is not None}
    matrix = as_matrix(inputs)
    if matrix is not None and not as_json:
        params = [(name, str(value)) for name, value in given.items()]
        return _post_matrix(model, route, matrix, (*params, ("log", "true")), accept=accept)
    body = {"inputs": inputs if matrix is None else matrix, **given, "log": True}
    request = post_json(f"{model.path}/{route}", {**body, **dict(model.params)})
    return Request(
        request.method, request.path, (), {**request.headers, "accept": accept}, request.content
    )


def _post_matrix(
    model: ModelAddress,
    route: str,
    matrix: Float32,
    params: Sequence[tuple[str, str]],
    *,
    accept: str,
) -> Request:
    headers = {"content-type": NPY, "accept": accept}
    path, content = f"{model.path}/{route}", to_npy(matrix)
    return Request("POST", path, (*params, *model.params), headers, content)


def _target_params(
    targets: list[Any], listed: bool, rows: int
) -> tuple[tuple[str, str], ...] | None:
    """Returns the targets as URL parameters, or None if they must travel in a body of JSON.

    A URL holds integers, and as many rows of targets as the inputs have. The response is a matrix,
    so each row must have the same number of targets.
    """
    lists = targets if listed else [[target] for target in targets] if rows == 1 else [targets]
    if not all(isinstance(one, list) for one in lists):
        return None
    if not all(type(target) is int for one in lists for target in one):
        return None
    if len(targets) != rows or not targets or len({len(one) for one in lists}) > 1 or not lists[0]:
        return None
    params = tuple(("targets", ",".join(map(str, one))) for one in lists)
    length = sum(len(text) + len("&targets=") for _, text in params)
    return params if length <= _MAX_PARAMETER_CHARS else None


def _read_pair_matrix(
    response: Response, *, listed: bool, shape: tuple[int, ...] | None, log: bool
) -> Array | list[Array]:
    values = from_log(from_npy(response.content), log)
    if shape is not None:
        return values.reshape(shape)
    return list(values) if listed else values.reshape(-1)


def _read_pairs(
    response: Response, *, listed: bool, shape: tuple[int, ...] | None, log: bool
) -> Array | list[Array]:
    values = response.json()["log_probabilities"]
    if not listed:
        return from_log(log_prob_array(values), log)
    rows = [from_log(log_prob_array(row), log) for row in values]
    return rows if shape is None else np.stack(rows).reshape(shape)


def _read_matrix(response: Response, *, log: bool) -> Array:
    return from_log(np.atleast_2d(from_npy(response.content)), log)


def _read_labels(response: Response) -> LabelPage:
    body = response.json()
    return LabelPage(tuple(body["targets"]), tuple(body["labels"]), body["next"])
