"""Work on many rows a chunk at a time, so that memory does not grow with how many there are."""

from collections.abc import Callable

import spox.opset.ai.onnx.v21 as op
from spox import Var

from .ops import between, concat, ints, length, scalar, yes


def in_chunks(
    total: Var, at_most: int, answer: Callable[[Var, Var], tuple[Var, ...]]
) -> tuple[Var, ...]:
    """What `answer(start, end)` says of consecutive chunks, joined along axis 0.

    `total` [1] is how many rows there are, at least one; start and end are [1] too, and every
    answer has a row for each row of its chunk.
    """
    size = op.min([total, ints(at_most)])
    chunks = op.div(op.add(total, op.sub(size, ints(1))), size)

    def body(i: Var, going: Var) -> list[Var]:
        start = op.mul(i, size)
        end = op.min([op.add(start, size), total])
        return [yes(), *(_padded(part, size) for part in answer(start, end))]

    stacked = op.loop(scalar(chunks), body=body)
    return tuple(between(_joined(part), ints(0), total) for part in stacked)


def _padded(part: Var, size: Var) -> Var:
    """Zeros below, up to `size` rows: what a loop stacks must be alike."""
    return op.pad(part, concat(ints(0), op.sub(size, length(part))), axes=ints(0))


def _joined(stacked: Var) -> Var:
    """[chunks, size, ...] -> [chunks * size, ...]."""
    return op.reshape(stacked, concat(ints(-1), op.shape(stacked, start=2)))
