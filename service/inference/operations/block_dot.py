"""The operation `block_dot`: multiplies chosen input blocks by chosen output blocks."""

from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import DTypeLike

from hsoftmax.models import QueryError
from hsoftmax.models.arrays import Array, Float32, Int64
from hsoftmax.models.sparse_block_dot import BlockSizes, expect_query
from hsoftmax.service.errors import InvalidQuery, TooLarge
from hsoftmax.service.inference.cost import block_dot_cost
from hsoftmax.service.inference.operation import (
    Operation,
    OperationResponse,
    Plan,
    Version,
)
from hsoftmax.service.inference.tensors.declaration import (
    OperationTensors,
    OutputTensor,
    indices_input,
    numbers_input,
)
from hsoftmax.service.inference.validation import expect_values
from hsoftmax.service.repository.loaded_bundle import LoadedBundle
from hsoftmax.service.settings import Settings

Indices = Annotated[
    list[int | list[int]],
    Meta(description="one list of block numbers for each row, or one flat list for a single row"),
]
Windows = Annotated[
    list[list[float | list[float]]],
    Meta(description="for each row its input blocks, each a list; or the blocks of a single row"),
]


class BlockDotQuery(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Input blocks with their numbers, and the output blocks to compute."""

    h: Windows
    input_index: Indices
    output_index: Indices
    version: Version = None


class BlockDotAnswer(OperationResponse, kw_only=True):
    """One list of numbers for each output block of each row."""

    output: list[list[list[float]]]


def plan(query: BlockDotQuery, bundle: LoadedBundle, settings: Settings) -> Plan:
    """Plan one product for each pair of an input block and an output block of a row."""
    session = bundle.session("block_dot")
    sizes = BlockSizes(**bundle.manifest.attributes)
    feeds = _feeds(query, sizes)
    rows, window = feeds["output_index"].shape
    if rows > settings.max_rows:
        raise TooLarge(f"h: expected at most {settings.max_rows} rows, got {rows}")
    expect_values(rows, window * sizes.output_size, settings)
    values = rows * window * sizes.output_size
    return Plan(
        session=session,
        feeds=feeds,
        rows=rows,
        cost=block_dot_cost(sizes, rows * feeds["h"].shape[1] * window),
        values=values,
        finish=lambda outputs: {"output": outputs[0]},
    )


def _feeds(query: BlockDotQuery, sizes: BlockSizes) -> dict[str, Array]:
    h = _h(query.h)
    indices = (_index("input_index", query.input_index), _index("output_index", query.output_index))
    if h.ndim == 2 and indices[0].ndim == indices[1].ndim == 1:
        h, indices = h[None], (indices[0][None], indices[1][None])
    try:
        expect_query(sizes, h, *indices)
    except QueryError as error:
        raise InvalidQuery(str(error)) from None
    if not len(h):
        raise InvalidQuery("h: expected at least one row, got none")
    return {"h": h, "input_index": indices[0], "output_index": indices[1]}


def _h(value: object) -> Float32:
    try:
        with np.errstate(over="raise"):
            h = _array("h", value, np.float32)
    except FloatingPointError:
        raise InvalidQuery("h: expected numbers within float32, got a larger one") from None
    if not np.isfinite(h).all():  # of a tensor: JSON has no NaN or infinity
        raise InvalidQuery("h: expected finite numbers, got NaN or infinity")
    return h


def _index(name: str, value: object) -> Int64:
    try:
        return _array(name, value, np.int64)
    except OverflowError:
        raise InvalidQuery(f"{name}: expected integers of 64 bits, got a larger one") from None


def _array(name: str, value: object, dtype: DTypeLike) -> Array:
    try:
        return np.array(value, dtype=dtype)
    except (ValueError, TypeError):
        raise InvalidQuery(f"{name}: expected lists of equal length, got others") from None


TENSORS = OperationTensors(
    inputs=(
        numbers_input("h", ("rows", "input_window", "input_size")),
        indices_input("input_index", ("rows", "input_window")),
        indices_input("output_index", ("rows", "output_window")),
    ),
    outputs=(
        OutputTensor("output", "FP32", ("rows", "output_window", "output_size"), "block_dot",
                     lambda result: result.outputs["output"],
                     inputs=("h", "input_index", "output_index")),
    ),
    answers_by_default=True,
)  # fmt: skip

BLOCK_DOT = Operation(
    name="block_dot",
    summary="Outputs of a block-sparse layer",
    query=BlockDotQuery,
    response=BlockDotAnswer,
    example={"h": [[[0.1, -0.2]]], "input_index": [[0]], "output_index": [[3, 1]]},
    plan=plan,
    guess_task=lambda body: "block_dot",
    tensors=TENSORS,
)
