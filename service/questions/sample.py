"""Draw targets as likely as they are. The noise is made here, so that a seed says it all."""

import secrets
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from models.arrays import Array, Float32
from scoring import LARGEST_SEED
from service.errors import InvalidQuery
from service.inputs import expect_values, hidden
from service.served import Served
from service.sessions import Session
from service.settings import Settings

from .numbers import listed, numbers
from .question import Answer, Fields, Plan, Query, Question
from .work import path_work

_NUMBERS_A_STEP = 8  # that Philox makes of one value of its counter, in float32
_SMALLEST_NOISE = np.float32(2**-25)  # never 0: a graph may take its logarithm


class SampleQuery(Query, frozen=True, kw_only=True):
    """How many to draw, and the seed that makes it repeatable."""

    num_samples: Annotated[
        int, Meta(description="targets to draw for each row", extra_json_schema={"minimum": 1})
    ] = 1
    seed: Annotated[
        int | None,
        Meta(
            description="makes the draw repeatable; absent takes one by chance, and says which",
            extra_json_schema={"minimum": 0, "maximum": LARGEST_SEED},
        ),
    ] = None


class Drawn(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One row's drawn targets, in the order of drawing, and how likely each was."""

    targets: list[int]
    labels: list[str] | None = None
    probabilities: list[float] | None = None
    log_probabilities: list[float] | None = None


class SampleAnswer(Answer, kw_only=True):
    """One result for each row, and the seed that gives the same again."""

    seed: int
    results: list[Drawn]


def plan(query: SampleQuery, served: Served, limits: Settings) -> Plan:
    """num_samples walks from the root for each row."""
    session = served.session("sample")
    states = hidden(query.inputs, served, limits)
    rows, samples = len(states), query.num_samples
    if samples < 1:
        raise InvalidQuery(f"num_samples: expected at least 1, got {samples}")
    per_sample = noise_per_sample(session)
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


def noise_per_sample(session: Session) -> int:
    """L of the graph's input `noise` [batch, samples, L]."""
    size = next(port.shape[-1] for port in session.graph.inputs if port.name == "noise")
    return int(size)


def noise(seed: int, rows: int, samples: int, per_sample: int, skip: int = 0) -> Float32:
    """Uniform in (0, 1), [rows, samples, per_sample]; without the seed's first `skip` numbers."""
    bits = np.random.Philox(seed)
    bits.advance(skip // _NUMBERS_A_STEP)
    before = skip % _NUMBERS_A_STEP
    count = rows * samples * per_sample
    made = np.random.Generator(bits).random(before + count, dtype=np.float32)[before:]
    return np.maximum(made, _SMALLEST_NOISE).reshape(rows, samples, per_sample)


def _seed(seed: int | None) -> int:
    if seed is None:
        return secrets.randbelow(LARGEST_SEED + 1)
    if not 0 <= seed <= LARGEST_SEED:
        raise InvalidQuery(f"seed: expected 0 to {LARGEST_SEED}, got {seed}")
    return seed


def _results(outputs: list[Array], served: Served, log: bool) -> Fields:
    target, log_prob = outputs
    values = numbers(log_prob, log)
    rows = zip(target, values, strict=True)
    return {"results": [listed(t, v, served.labels, log) for t, v in rows]}


SAMPLE = Question(
    name="sample",
    summary="Targets drawn as likely as they are",
    query=SampleQuery,
    answer=SampleAnswer,
    example={"inputs": [[0.1, -0.2, 0.3]], "num_samples": 3, "seed": 0},
    plan=plan,
    task=lambda body: "sample",
)
