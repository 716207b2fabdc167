"""The operation `top_k`: the k most likely targets."""

from typing import Annotated

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType

from hsoftmax.models.arrays import Array
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
    k = default_k(bundle.num_targets) if query.k is UNSET else expect_k(query.k, bundle)
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


TOP_K = Operation(
    name="top_k",
    aliases=("topk",),
    summary="The k most likely targets",
    query=TopKQuery,
    response=TopKAnswer,
    example={"inputs": [[0.1, -0.2, 0.3]], "k": 5},
    plan=plan,
    guess_task=lambda body: "top_k",
)
