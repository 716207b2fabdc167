"""The operation `probabilities`: of given targets, or of every target."""

from itertools import accumulate
from typing import Annotated

import numpy as np
from msgspec import Meta

from hsoftmax.models.arrays import Array, Float32, Float64
from hsoftmax.service.errors import InvalidQuery
from hsoftmax.service.inference.cost import cluster_cost, full_cost, path_cost
from hsoftmax.service.inference.operation import (
    MatrixResult,
    Operation,
    OperationResponse,
    Plan,
    Query,
    ResponseFields,
)
from hsoftmax.service.inference.output_values import field_name, to_target_values, to_values
from hsoftmax.service.inference.tensors.declaration import (
    OperationTensors,
    OutputTensor,
    TaskResult,
    finite_log_probs,
    probabilities,
)
from hsoftmax.service.inference.tensors.targets import TARGET_INPUTS
from hsoftmax.service.inference.validation import Pairs, Targets, hidden_states, target_pairs
from hsoftmax.service.repository.loaded_bundle import LoadedBundle
from hsoftmax.service.settings import Settings


class ProbabilitiesQuery(Query, frozen=True, kw_only=True):
    """Targets flat (one a row), as lists (any number a row), or absent (all of them)."""

    targets: Annotated[
        Targets | None,
        Meta(
            description="one target for each row, or one list for each row; absent means all. "
            "A target is an integer, or a label where the bundle has labels"
        ),
    ] = None
    clusters: Annotated[
        bool,
        Meta(description="return the clusters of each row too, the marginals of level 0"),
    ] = False


Values = list[float | list[float | None] | None]


class ProbabilitiesAnswer(OperationResponse, kw_only=True, omit_defaults=True):
    """Numbers in the shape of `targets`; all num_targets of each row if it is absent."""

    probabilities: Values | None = None
    log_probabilities: Values | None = None
    cluster_probabilities: list[list[float | None]] | None = None
    cluster_log_probabilities: list[list[float | None]] | None = None


def plan(query: ProbabilitiesQuery, bundle: LoadedBundle, settings: Settings) -> Plan:
    """Plan one path for each pair, or the full distribution."""
    if query.targets is None:
        if query.clusters:
            raise InvalidQuery("clusters: expected targets beside it, got none")
        return _plan_full(query, bundle, settings)
    return _plan_pairs(query, query.targets, bundle, settings)


def _plan_full(query: ProbabilitiesQuery, bundle: LoadedBundle, settings: Settings) -> Plan:
    session = bundle.session("log_probs")
    states = hidden_states(query.inputs, bundle, settings)
    rows, log = len(states), query.log
    return Plan(
        session=session,
        feeds={"hidden": states},
        rows=rows,
        cost=full_cost(bundle, rows),
        values=rows * bundle.num_targets,
        finish=lambda outputs: {field_name(log): to_values(outputs[0], log, bundle.max_log_prob)},
        matrix=MatrixResult(field_name(log), log, bundle.num_targets, bundle.max_log_prob),
    )


def _plan_pairs(
    query: ProbabilitiesQuery, targets: Targets, bundle: LoadedBundle, settings: Settings
) -> Plan:
    session = bundle.session("target_log_prob")
    states = hidden_states(query.inputs, bundle, settings)
    pairs = target_pairs(targets, len(states), bundle, settings)
    count, log = len(pairs.target), query.log
    return Plan(
        session=session,
        feeds={"hidden": states, "row": pairs.row, "target": pairs.target} if count else None,
        rows=len(states),
        cost=path_cost(bundle, count),
        values=count,
        finish=lambda outputs: _per_pair(outputs, pairs, log, bundle.max_log_prob),
        extra=_plan_clusters(states, bundle, log) if query.clusters else None,
    )


def _plan_clusters(states: Float32, bundle: LoadedBundle, log: bool) -> Plan:
    clusters = bundle.manifest.num_clusters or 0
    return Plan(
        session=bundle.session("cluster_log_probs"),
        feeds={"hidden": states},
        rows=len(states),
        cost=cluster_cost(bundle, len(states)),
        values=len(states) * clusters,
        finish=lambda outputs: {
            f"cluster_{field_name(log)}": to_values(outputs[0], log, bundle.max_log_prob)
        },
    )


def _per_pair(outputs: list[Array], pairs: Pairs, log: bool, max_log_prob: float) -> ResponseFields:
    log_prob = outputs[0] if outputs else np.empty(0, dtype=np.float32)
    flat = to_target_values(log_prob, log, max_log_prob)
    if pairs.counts is None:
        return {field_name(log): flat}
    ends = zip(pairs.counts, accumulate(pairs.counts), strict=True)
    return {field_name(log): [flat[end - count : end] for count, end in ends]}


def _task(body: bytes) -> str:
    """Guess the task from a JSON body: `targets` is in it or not.

    A client that escapes characters of the name gets the guess of a full distribution, so it may be
    rejected although the other lane has room.
    """
    # `rfind`, because targets usually come last, behind kilobytes of inputs.
    return "target_log_prob" if body.rfind(b'"targets"') >= 0 else "log_probs"


def _target_log_prob(result: TaskResult) -> Float32:
    return finite_log_probs(_of_pairs(result), result.bundle)


def _target_prob(result: TaskResult) -> Float64:
    return probabilities(_of_pairs(result), result.bundle)


def _of_pairs(result: TaskResult) -> Array:
    """Return the log-probabilities in the shape of the input `target`."""
    flat = result.outputs.get("log_prob", np.empty(0, np.float32))
    return flat.reshape(result.query.targets.shape)


_TARGET_SHAPE, _ROW_SHAPE = ("rows", "targets"), ("rows", "num_targets")

TENSORS = OperationTensors(
    inputs=TARGET_INPUTS,
    outputs=(
        OutputTensor("target_log_prob", "FP32", _TARGET_SHAPE, "target_log_prob",
                     _target_log_prob, inputs=("target",)),
        OutputTensor("target_prob", "FP64", _TARGET_SHAPE, "target_log_prob",
                     _target_prob, inputs=("target",)),
        OutputTensor("log_probs", "FP32", _ROW_SHAPE, "log_probs", is_default=False,
                     read=lambda result: finite_log_probs(
                         result.outputs["log_probs"], result.bundle)),
        OutputTensor("probs", "FP64", _ROW_SHAPE, "log_probs", is_default=False,
                     read=lambda result: probabilities(
                         result.outputs["log_probs"], result.bundle)),
    ),
    answers_by_default=True,
)  # fmt: skip

PROBABILITIES = Operation(
    name="probabilities",
    summary="Probabilities of targets, or the full distribution",
    query=ProbabilitiesQuery,
    response=ProbabilitiesAnswer,
    example={"inputs": [[0.1, -0.2, 0.3]], "targets": [[3, 17]]},
    plan=plan,
    guess_task=_task,
    tensors=TENSORS,
)
