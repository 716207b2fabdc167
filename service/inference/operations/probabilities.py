"""How likely is each of these targets, or every target? The seeds' `h_softmax` as one route."""

from itertools import accumulate
from typing import Annotated

import numpy as np
from msgspec import Meta

from hsoftmax.models.arrays import Array, Float32
from hsoftmax.service.errors import InvalidQuery
from hsoftmax.service.inference.cost import cluster_work, full_work, path_work
from hsoftmax.service.inference.operation import (
    Fields,
    MatrixResult,
    Operation,
    OperationResponse,
    Plan,
    Query,
)
from hsoftmax.service.inference.output_values import field, numbers
from hsoftmax.service.inference.validation import Pairs, Targets, hidden, pairs
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
        Meta(description="answer the clusters of each row too, the marginals of level 0"),
    ] = False


Values = list[float | list[float | None] | None]


class ProbabilitiesAnswer(OperationResponse, kw_only=True, omit_defaults=True):
    """Numbers in the form of `targets`; all num_targets of each row where that was absent."""

    probabilities: Values | None = None
    log_probabilities: Values | None = None
    cluster_probabilities: list[list[float | None]] | None = None
    cluster_log_probabilities: list[list[float | None]] | None = None


def plan(query: ProbabilitiesQuery, served: LoadedBundle, limits: Settings) -> Plan:
    """One path for each pair, or the full distribution."""
    if query.targets is None:
        if query.clusters:
            raise InvalidQuery("clusters: expected targets beside it, got none")
        return _plan_full(query, served, limits)
    return _plan_pairs(query, query.targets, served, limits)


def _plan_full(query: ProbabilitiesQuery, served: LoadedBundle, limits: Settings) -> Plan:
    session = served.session("log_probs")
    states = hidden(query.inputs, served, limits)
    rows, log = len(states), query.log
    return Plan(
        session=session,
        feeds={"hidden": states},
        rows=rows,
        work=full_work(served, rows),
        values=rows * served.num_targets,
        finish=lambda outputs: {field(log): numbers(outputs[0], log)},
        matrix=MatrixResult(field(log), log, served.num_targets),
    )


def _plan_pairs(
    query: ProbabilitiesQuery, targets: Targets, served: LoadedBundle, limits: Settings
) -> Plan:
    session = served.session("target_log_prob")
    states = hidden(query.inputs, served, limits)
    asked = pairs(targets, len(states), served, limits)
    count, log = len(asked.target), query.log
    return Plan(
        session=session,
        feeds={"hidden": states, "row": asked.row, "target": asked.target} if count else None,
        rows=len(states),
        work=path_work(served, count),
        values=count,
        finish=lambda outputs: _per_pair(outputs, asked, log),
        also=_plan_clusters(states, served, log) if query.clusters else None,
    )


def _plan_clusters(states: Float32, served: LoadedBundle, log: bool) -> Plan:
    clusters = served.manifest.num_clusters or 0
    return Plan(
        session=served.session("cluster_log_probs"),
        feeds={"hidden": states},
        rows=len(states),
        work=cluster_work(served, len(states)),
        values=len(states) * clusters,
        finish=lambda outputs: {f"cluster_{field(log)}": numbers(outputs[0], log)},
    )


def _per_pair(outputs: list[Array], asked: Pairs, log: bool) -> Fields:
    flat = numbers(outputs[0], log) if outputs else np.empty(0, dtype=np.float32)
    if asked.counts is None:
        return {field(log): flat}
    ends = zip(asked.counts, accumulate(asked.counts), strict=True)
    return {field(log): [flat[end - count : end] for count, end in ends]}


def _task(body: bytes) -> str:
    """Who writes the name in escapes may be told too early that the other task has no room."""
    # They usually come last, behind kilobytes of inputs.
    return "target_log_prob" if body.rfind(b'"targets"') >= 0 else "log_probs"


PROBABILITIES = Operation(
    name="probabilities",
    summary="How likely each target is, or the full distribution",
    query=ProbabilitiesQuery,
    answer=ProbabilitiesAnswer,
    example={"inputs": [[0.1, -0.2, 0.3]], "targets": [[3, 17]]},
    plan=plan,
    task=_task,
)
