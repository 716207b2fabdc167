"""Draw targets as likely as they are. The noise is made here, so that a seed says it all."""

import secrets
from typing import Annotated

import msgspec
from msgspec import Meta

from hsoftmax.models.arrays import Array
from hsoftmax.models.sampling import noise
from hsoftmax.scoring import MAX_SEED
from hsoftmax.service.errors import InvalidQuery
from hsoftmax.service.inference.cost import path_work
from hsoftmax.service.inference.operation import Fields, Operation, OperationResponse, Plan, Query
from hsoftmax.service.inference.output_values import listed, numbers
from hsoftmax.service.inference.validation import expect_values, hidden
from hsoftmax.service.repository.loaded_bundle import LoadedBundle
from hsoftmax.service.settings import Settings


class SampleQuery(Query, frozen=True, kw_only=True):
    """How many to draw, and the seed that makes it repeatable."""

    num_samples: Annotated[
        int, Meta(description="targets to draw for each row", extra_json_schema={"minimum": 1})
    ] = 1
    seed: Annotated[
        int | None,
        Meta(
            description="makes the draw repeatable; absent takes one by chance, and says which",
            extra_json_schema={"minimum": 0, "maximum": MAX_SEED},
        ),
    ] = None


class Drawn(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One row's drawn targets, in the order of drawing, and how likely each was."""

    targets: list[int]
    labels: list[str] | None = None
    probabilities: list[float] | None = None
    log_probabilities: list[float] | None = None


class SampleAnswer(OperationResponse, kw_only=True):
    """One result for each row, and the seed that gives the same again."""

    seed: int
    results: list[Drawn]


def plan(query: SampleQuery, served: LoadedBundle, limits: Settings) -> Plan:
    """num_samples walks from the root for each row."""
    session = served.session("sample")
    states = hidden(query.inputs, served, limits)
    rows, samples = len(states), query.num_samples
    if samples < 1:
        raise InvalidQuery(f"num_samples: expected at least 1, got {samples}")
    per_sample = session.graph.noise_per_sample
    expect_values(rows, samples * per_sample, limits)
    seed = _seed(query.seed)
    return Plan(
        session=session,
        feeds={"hidden": states, "noise": noise(seed, rows, samples, per_sample)},
        rows=rows,
        work=path_work(served, rows * samples),
        values=rows * samples,
        finish=lambda outputs: {"seed": seed, **_results(outputs, served, query.log)},
        apart=True,  # rounding that differs with the company would now and then draw another
    )


def _seed(seed: int | None) -> int:
    if seed is None:
        return secrets.randbelow(MAX_SEED + 1)
    if not 0 <= seed <= MAX_SEED:
        raise InvalidQuery(f"seed: expected 0 to {MAX_SEED}, got {seed}")
    return seed


def _results(outputs: list[Array], served: LoadedBundle, log: bool) -> Fields:
    target, log_prob = outputs
    values = numbers(log_prob, log)
    rows = zip(target, values, strict=True)
    return {"results": [listed(t, v, served.labels, log) for t, v in rows]}


SAMPLE = Operation(
    name="sample",
    summary="Targets drawn as likely as they are",
    query=SampleQuery,
    answer=SampleAnswer,
    example={"inputs": [[0.1, -0.2, 0.3]], "num_samples": 3, "seed": 0},
    plan=plan,
    task=lambda body: "sample",
)
