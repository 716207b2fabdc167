"""The operation `top_k`: the k most likely targets."""

from typing import Annotated

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType

from hsoftmax.models.arrays import Array, Float32, Float64
from hsoftmax.scoring import CallError
from hsoftmax.scoring.choices import DEFAULT_K
from hsoftmax.scoring.task import default_k, expect_threshold
from hsoftmax.scoring.threshold import count_above, searched_targets
from hsoftmax.service.errors import InvalidQuery
from hsoftmax.service.inference.cost import top_k_cost
from hsoftmax.service.inference.operation import (
    Operation,
    OperationResponse,
    Plan,
    Query,
    ResponseFields,
)
from hsoftmax.service.inference.output_values import target_fields, to_target_values
from hsoftmax.service.inference.tensors.declaration import (
    OperationTensors,
    OutputTensor,
    TaskResult,
    finite_log_probs,
    label_bytes,
    probabilities,
)
from hsoftmax.service.inference.validation import expect_k, expect_values, hidden_states
from hsoftmax.service.repository.loaded_bundle import LoadedBundle
from hsoftmax.service.settings import Settings

_MAX_BLOCKS = 2**31  # more than any bundle has, and far from the end of the graph's int64


class TopKQuery(Query, frozen=True, kw_only=True):
    """Query with k, and the maximum number of blocks to open."""

    k: (
        Annotated[
            int,
            Meta(
                description="number of targets, 1 to num_targets; by default "
                f"{DEFAULT_K}, or num_targets if that is less",
                extra_json_schema={"minimum": 1},
            ),
        ]
        | UnsetType
    ) = UNSET
    max_blocks: Annotated[
        int,
        Meta(
            description="maximum number of blocks to open for a row; 0 is no limit, always exact",
            extra_json_schema={"minimum": 0},
        ),
    ] = 0
    threshold: Annotated[
        float | None,
        Meta(
            description="only targets with a probability above it, at most k of them",
            extra_json_schema={"minimum": 0, "maximum": 1},
        ),
    ] = None


class Likeliest(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One row's most likely targets, descending; of equal ones the lower target comes first."""

    targets: list[int]
    exact: bool
    blocks: int
    labels: list[str] | None = None
    probabilities: list[float] | None = None
    log_probabilities: list[float] | None = None
    truncated: Annotated[
        bool | None, Meta(description="true if more than k targets are above the threshold")
    ] = None


class TopKAnswer(OperationResponse, kw_only=True):
    """One result for each row."""

    results: list[Likeliest]


def plan(query: TopKQuery, bundle: LoadedBundle, settings: Settings) -> Plan:
    """Plan one search for each row."""
    session = bundle.session("top_k")
    states = hidden_states(query.inputs, bundle, settings)
    rows = len(states)
    k = _k(query, bundle)
    if query.max_blocks < 0:
        raise InvalidQuery(f"max_blocks: expected 0 or more, got {query.max_blocks}")
    if query.threshold is not None:
        _expect_threshold(query.threshold)
    searched = searched_targets(k, query.threshold, bundle.num_targets, bundle.max_log_prob)
    expect_values(rows, searched, settings)
    max_blocks = min(query.max_blocks, _MAX_BLOCKS)
    return Plan(
        session=session,
        feeds={"hidden": states, "k": np.array([searched]), "max_blocks": np.array([max_blocks])},
        rows=rows,
        cost=top_k_cost(bundle, rows, max_blocks),
        values=rows * searched,
        finish=lambda outputs: _results(outputs, bundle, query, k),
    )


def _k(query: TopKQuery, bundle: LoadedBundle) -> int:
    """Return the number of targets of each row. Raises InvalidQuery for one out of range."""
    return default_k(bundle.num_targets) if query.k is UNSET else expect_k(query.k, bundle)


def _expect_threshold(threshold: float) -> None:
    """Raise InvalidQuery unless it is a probability."""
    try:
        expect_threshold(threshold)
    except CallError as error:
        raise InvalidQuery(str(error)) from None


def _results(
    outputs: list[Array], bundle: LoadedBundle, query: TopKQuery, k: int
) -> ResponseFields:
    log_prob, target, blocks, exact = outputs
    values = to_target_values(log_prob, query.log, bundle.max_log_prob)
    # A search with a limit may find fewer than k targets: the rest has log-probability -inf.
    above = count_above(np.minimum(log_prob, bundle.max_log_prob), query.threshold)
    cut = (
        [{}] * len(above)
        if query.threshold is None
        else [{"truncated": n > k} for n in above.tolist()]
    )
    return {
        "results": [
            target_fields(target[i, :n], values[i, :n], bundle.labels, query.log)
            | {"exact": bool(exact[i]), "blocks": int(blocks[i])}
            | cut[i]
            for i, n in enumerate(np.minimum(above, k).tolist())
        ]
    }


def _valid(result: TaskResult) -> tuple[Array, Array]:
    """Return [rows, k] of the log-probabilities, and the number of targets found in each row."""
    bundle, query = result.bundle, result.query
    log_prob = result.outputs["log_prob"]
    k = _k(query, bundle)
    above = count_above(np.minimum(log_prob, bundle.max_log_prob), query.threshold)
    return log_prob[:, :k], np.minimum(above, k)


def _is_found(result: TaskResult) -> Array:
    """[rows, k]: False where a search found fewer than k targets."""
    log_prob, found = _valid(result)
    return np.arange(log_prob.shape[1]) < found[:, None]


def _found_log_probs(result: TaskResult) -> Float32:
    log_prob = np.where(_is_found(result), _valid(result)[0], -np.inf)
    return finite_log_probs(log_prob, result.bundle)


def _found_targets(result: TaskResult) -> Array:
    is_found = _is_found(result)
    return np.where(is_found, result.outputs["target"][:, : is_found.shape[1]], -1)


def _found_probs(result: TaskResult) -> Float64:
    return probabilities(_found_log_probs(result), result.bundle)


def _is_truncated(result: TaskResult) -> Array:
    """[rows]: True if more than k targets are above the threshold."""
    query, bundle = result.query, result.bundle
    if query.threshold is None:
        return np.zeros(len(result.outputs["exact"]), bool)
    log_prob = np.minimum(result.outputs["log_prob"], bundle.max_log_prob)
    return count_above(log_prob, query.threshold) > _k(query, bundle)


def _classes(result: TaskResult, values: Array) -> list[bytes]:
    """Return `value:target` or `value:target:label` of each target, as `classification` does."""
    targets = _found_targets(result)
    texts = [f"{value:.9g}:{target}" for value, target in zip(
        values.ravel().tolist(), targets.ravel().tolist(), strict=True)]  # fmt: skip
    if result.bundle.labels is None:
        return [text.encode() for text in texts]
    labels = label_bytes(targets, result.bundle)
    return [text.encode() + b":" + label for text, label in zip(texts, labels, strict=True)]


_SHAPE = ("rows", "k")

TENSORS = OperationTensors(
    outputs=(
        OutputTensor("top_k_target", "INT64", _SHAPE, "top_k", _found_targets),
        OutputTensor("top_k_log_prob", "FP32", _SHAPE, "top_k", _found_log_probs),
        OutputTensor("top_k_prob", "FP64", _SHAPE, "top_k", _found_probs),
        OutputTensor("top_k_label", "BYTES", _SHAPE, "top_k", needs_labels=True,
                     read=lambda result: label_bytes(_found_targets(result), result.bundle)),
        OutputTensor("exact", "BOOL", ("rows",), "top_k",
                     lambda result: result.outputs["exact"]),
        OutputTensor("blocks", "INT64", ("rows",), "top_k",
                     lambda result: result.outputs["blocks"]),
        OutputTensor("found", "INT64", ("rows",), "top_k", is_default=False,
                     read=lambda result: _valid(result)[1]),
        OutputTensor("truncated", "BOOL", ("rows",), "top_k", is_default=False,
                     read=_is_truncated),
    ),
    parameters=("k", "max_blocks", "threshold"),
    answers_by_default=True,
    count_parameter="k",
    classes={
        "probs": lambda result: _classes(result, _found_probs(result)),
        "log_probs": lambda result: _classes(result, _found_log_probs(result)),
    },
)  # fmt: skip

TOP_K = Operation(
    name="top_k",
    aliases=("topk",),
    summary="The k most likely targets",
    query=TopKQuery,
    response=TopKAnswer,
    example={"inputs": [[0.1, -0.2, 0.3]], "k": 5},
    plan=plan,
    guess_task=lambda body: "top_k",
    tensors=TENSORS,
)
