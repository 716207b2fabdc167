"""Which k targets are the likeliest?"""

from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from hsoftmax.models.arrays import Array
from hsoftmax.service.errors import InvalidQuery
from hsoftmax.service.inference.cost import full_work, path_work
from hsoftmax.service.inference.operation import Fields, Operation, OperationResponse, Plan, Query
from hsoftmax.service.inference.output_values import listed, numbers
from hsoftmax.service.inference.validation import expect_k, expect_values, hidden
from hsoftmax.service.repository.loaded_bundle import LoadedBundle
from hsoftmax.service.settings import Settings

_MOST_BLOCKS = 2**31  # more than there can be: the graph's int64 is never overflowed


class TopKQuery(Query, frozen=True, kw_only=True):
    """k, and how many blocks may be opened to find them."""

    k: Annotated[
        int,
        Meta(description="how many targets, 1 to num_targets", extra_json_schema={"minimum": 1}),
    ] = 10
    max_blocks: Annotated[
        int,
        Meta(
            description="most blocks to open for a row; 0 is no limit, and always exact",
            extra_json_schema={"minimum": 0},
        ),
    ] = 0


class Likeliest(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One row's likeliest targets, descending; ties go to the lower target."""

    targets: list[int]
    exact: bool
    blocks: int
    labels: list[str] | None = None
    probabilities: list[float] | None = None
    log_probabilities: list[float] | None = None


class TopKAnswer(OperationResponse, kw_only=True):
    """One result for each row."""

    results: list[Likeliest]


def plan(query: TopKQuery, served: LoadedBundle, limits: Settings) -> Plan:
    """One search for each row."""
    session = served.session("top_k")
    states = hidden(query.inputs, served, limits)
    rows, k = len(states), expect_k(query.k, served)
    if query.max_blocks < 0:
        raise InvalidQuery(f"max_blocks: expected 0 or more, got {query.max_blocks}")
    expect_values(rows, k, limits)
    max_blocks = min(query.max_blocks, _MOST_BLOCKS)
    work = path_work(served, rows * max_blocks) if max_blocks else full_work(served, rows)
    return Plan(
        session=session,
        feeds={"hidden": states, "k": np.array([k]), "max_blocks": np.array([max_blocks])},
        rows=rows,
        work=min(work, full_work(served, rows)),
        values=rows * k,
        finish=lambda outputs: _results(outputs, served, query.log),
    )


def _results(outputs: list[Array], served: LoadedBundle, log: bool) -> Fields:
    log_prob, target, blocks, exact = outputs
    values = numbers(log_prob, log)
    # A search that was cut short may have found fewer than k: the rest has no probability.
    found = (log_prob > -np.inf).sum(axis=1)
    return {
        "results": [
            listed(target[i, :n], values[i, :n], served.labels, log)
            | {"exact": bool(exact[i]), "blocks": int(blocks[i])}
            for i, n in enumerate(found)
        ]
    }


TOPK = Operation(
    name="topk",
    summary="The k likeliest targets",
    query=TopKQuery,
    answer=TopKAnswer,
    example={"inputs": [[0.1, -0.2, 0.3]], "k": 5},
    plan=plan,
    task=lambda body: "top_k",
)
