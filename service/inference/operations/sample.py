"""The operation `sample`: draws targets by their probabilities, repeatably by a seed."""

import secrets
from typing import Annotated

import msgspec
from msgspec import Meta

from hsoftmax.models.arrays import Array
from hsoftmax.models.seeded_noise import noise
from hsoftmax.scoring import MAX_SEED
from hsoftmax.service.errors import InvalidQuery
from hsoftmax.service.inference.cost import path_cost
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
    finite_log_probs,
    label_bytes,
    probabilities,
)
from hsoftmax.service.inference.validation import expect_values, hidden_states
from hsoftmax.service.repository.loaded_bundle import LoadedBundle
from hsoftmax.service.settings import Settings

_MAX_FIRST_ROW = 2**53 - 1  # the largest integer that JSON clients write exactly


class SampleQuery(Query, frozen=True, kw_only=True):
    """The number of draws, the seed, and the number of the first row."""

    num_samples: Annotated[
        int, Meta(description="targets to draw for each row", extra_json_schema={"minimum": 1})
    ] = 1
    seed: Annotated[
        int | None,
        Meta(
            description="makes the draw repeatable; random by default, and part of the response",
            extra_json_schema={"minimum": 0, "maximum": MAX_SEED},
        ),
    ] = None
    first_row: Annotated[
        int,
        Meta(
            description="number of the first row: with 100, the rows draw as the rows from 100 on "
            "of a larger query with the same seed",
            extra_json_schema={"minimum": 0, "maximum": _MAX_FIRST_ROW},
        ),
    ] = 0


class Drawn(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One row's drawn targets in the order of drawing, and the probability of each."""

    targets: list[int]
    labels: list[str] | None = None
    probabilities: list[float] | None = None
    log_probabilities: list[float] | None = None


class SampleAnswer(OperationResponse, kw_only=True):
    """One result for each row, and the seed that repeats the draw."""

    seed: int
    results: list[Drawn]


def plan(query: SampleQuery, bundle: LoadedBundle, settings: Settings) -> Plan:
    """Plan num_samples walks from the root for each row; the noise comes from the seed."""
    session = bundle.session("sample")
    states = hidden_states(query.inputs, bundle, settings)
    rows, samples = len(states), query.num_samples
    if samples < 1:
        raise InvalidQuery(f"num_samples: expected at least 1, got {samples}")
    per_sample = session.graph.noise_per_sample
    expect_values(rows, samples * per_sample, settings)
    seed = _seed(query.seed)
    skip = _first_row(query.first_row) * samples * per_sample
    return Plan(
        session=session,
        feeds={"hidden": states, "noise": noise(seed, rows, samples, per_sample, skip)},
        rows=rows,
        cost=path_cost(bundle, rows * samples),
        values=rows * samples,
        finish=lambda outputs: {"seed": seed, **_results(outputs, bundle, query.log)},
        isolated=True,  # in another batch, other rounding might draw another target
        chosen={"seed": seed},
    )


def _seed(seed: int | None) -> int:
    if seed is None:
        return secrets.randbelow(MAX_SEED + 1)
    if not 0 <= seed <= MAX_SEED:
        raise InvalidQuery(f"seed: expected 0 to {MAX_SEED}, got {seed}")
    return seed


def _first_row(first_row: int) -> int:
    if not 0 <= first_row <= _MAX_FIRST_ROW:
        raise InvalidQuery(f"first_row: expected 0 to {_MAX_FIRST_ROW}, got {first_row}")
    return first_row


def _results(outputs: list[Array], bundle: LoadedBundle, log: bool) -> ResponseFields:
    target, log_prob = outputs
    values = to_target_values(log_prob, log, bundle.max_log_prob)
    rows = zip(target, values, strict=True)
    return {"results": [target_fields(t, v, bundle.labels, log) for t, v in rows]}


_SHAPE = ("rows", "num_samples")

TENSORS = OperationTensors(
    outputs=(
        OutputTensor("sample", "INT64", _SHAPE, "sample", lambda result: result.outputs["target"]),
        OutputTensor("sample_log_prob", "FP32", _SHAPE, "sample",
                     lambda result: finite_log_probs(result.outputs["log_prob"], result.bundle)),
        OutputTensor("sample_prob", "FP64", _SHAPE, "sample",
                     lambda result: probabilities(result.outputs["log_prob"], result.bundle)),
        OutputTensor("sample_label", "BYTES", _SHAPE, "sample", needs_labels=True,
                     read=lambda result: label_bytes(result.outputs["target"], result.bundle)),
    ),
    parameters=("num_samples", "seed"),
)  # fmt: skip

SAMPLE = Operation(
    name="sample",
    summary="Targets drawn from the distribution",
    query=SampleQuery,
    response=SampleAnswer,
    example={"inputs": [[0.1, -0.2, 0.3]], "num_samples": 3, "seed": 0},
    plan=plan,
    guess_task=lambda body: "sample",
    tensors=TENSORS,
    isolated=True,
)
