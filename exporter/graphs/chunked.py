"""Computes many rows in chunks, so that memory does not grow with the number of rows."""

from collections.abc import Callable

import spox.opset.ai.onnx.v21 as op
from spox import Var

from .ops import between, concat, ints, length, scalar, true


def map_chunks(
    total: Var, max_rows: int, compute: Callable[[Var, Var], tuple[Var, ...]]
) -> tuple[Var, ...]:
    """Return the results of `compute(start, end)` for consecutive chunks, joined along axis 0.

    Args:
        total: [1] number of rows, at least one
        max_rows: largest number of rows in a chunk
        compute: takes start and end, [1] each; each result has one row per row of the chunk
    """
    size = op.min([total, ints(max_rows)])
    chunks = op.div(op.add(total, op.sub(size, ints(1))), size)

    def body(i: Var, condition: Var) -> list[Var]:
        start = op.mul(i, size)
        end = op.min([op.add(start, size), total])
        return [true(), *(_padded(result, size) for result in compute(start, end))]

    stacked = op.loop(scalar(chunks), body=body)
    return tuple(between(_joined(result), ints(0), total) for result in stacked)


def _padded(part: Var, size: Var) -> Var:
    """Append zeros up to `size` rows, because a loop stacks results of equal shape only."""
    return op.pad(part, concat(ints(0), op.sub(size, length(part))), axes=ints(0))


def _joined(stacked: Var) -> Var:
    """[chunks, size, ...] -> [chunks * size, ...]."""
    return op.reshape(stacked, concat(ints(-1), op.shape(stacked, start=2)))
