"""Plans which blocks a run opens, and for which hidden rows: integer arithmetic on the host.

A *call* is a hidden row that reads a block; equal pairs of row and block are one call. A *line* is
one block of a run with up to R calls. Each distinct block is opened once for all its calls, unless
it has more than `MAX_CALLS`: then it takes several lines, so that one block with many calls does
not widen all others.

Blocks are opened *in place* where the lines are consecutive blocks of one size, or nearly all of
them: a copy of D blocks reads, writes and reads again what C blocks in place read once. Others are
copied together first, padded to the largest of them; so blocks of different sizes are grouped, with
a quarter of padding at most.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hsoftmax.models.arrays import Int64

MAX_CALLS = 32
_PASSES_OF_A_COPY = 3  # over a block: read, write, and read in the product
_FLOAT_BYTES = 4
_MAX_ELEMENTS = 2**31 - 1  # of a tensor on CUDA
_STEPS_PER_DOUBLING = 4  # sizes of blocks that are padded to one


@dataclass(frozen=True)
class LevelShape:
    """The blocks of a level: the rows first[b] to first[b] + size[b]."""

    first: Int64
    size: Int64
    hidden_size: int

    @property
    def num_blocks(self) -> int:
        return len(self.size)

    def size_classes(self, block: Int64) -> Int64:
        """Return a number for each block; blocks of one number are padded to one size."""
        steps = np.ceil(np.log2(self.size[block]) * _STEPS_PER_DOUBLING)
        classes: Int64 = steps.astype(np.int64)
        return classes


@dataclass(frozen=True)
class RunCost:
    """Bytes of a run's temporary arrays.

    Attributes:
        value_bytes: of each logit, in all arrays that hold one number for each
        max_bytes: of the whole run
    """

    value_bytes: int
    max_bytes: int

    def max_lines(self, shape: LevelShape, lines: "Lines") -> int:
        """Return how many of these lines one run may have: at least one."""
        call_elements = max(lines.size, shape.hidden_size)
        line_elements = max(lines.num_calls * call_elements, lines.size * shape.hidden_size)
        copied = 0 if lines.in_place else lines.size * (shape.hidden_size + 1) * _FLOAT_BYTES
        line_bytes = copied + lines.num_calls * (
            lines.size * self.value_bytes + shape.hidden_size * _FLOAT_BYTES
        )
        return max(1, min(self.max_bytes // line_bytes, _MAX_ELEMENTS // line_elements))

    def max_calls(self, shape: LevelShape, size: int) -> int:
        """Return how many calls one line of a block of this size may have: at least one."""
        call_bytes = size * self.value_bytes + shape.hidden_size * _FLOAT_BYTES
        call_elements = max(size, shape.hidden_size)
        return max(1, min(self.max_bytes // call_bytes, _MAX_ELEMENTS // call_elements))


@dataclass(frozen=True)
class Lines:
    """The blocks that one run opens, and the calls of each.

    Attributes:
        block: [D] the block of each line
        row: [D, R] the hidden row of each call; any row where a line has fewer calls
        size: K, rows of the largest block
        in_place: the blocks are consecutive and of this size
        pair: [P] the pairs that this run answers
        place: [P] line * R + call of each of them
    """

    block: Int64
    row: Int64
    size: int
    in_place: bool
    pair: Int64
    place: Int64

    @property
    def num_calls(self) -> int:
        return int(self.row.shape[1])


def plan_pairs(row: Int64, block: Int64, shape: LevelShape, cost: RunCost) -> Iterator[Lines]:
    """Plan the runs that open block [P] for the hidden row [P] of each pair."""
    rows = int(row.max()) + 1
    key, number = np.unique(block * rows + row, return_inverse=True)
    calls = _Calls(*np.divmod(key, rows))
    classes = shape.size_classes(calls.block)
    for one in np.unique(classes):
        chosen = np.flatnonzero(classes == one)
        new_number = np.full(len(key), -1)
        new_number[chosen] = np.arange(len(chosen))
        pair = np.flatnonzero(new_number[number] >= 0)
        of_class = _Calls(calls.block[chosen], calls.row[chosen])
        lines = _lay_out(of_class, pair, new_number[number[pair]], shape, cost)
        # Blocks that only fill a span may be alone in a part.
        yield from (part for part in _split(lines, shape, cost) if len(part.pair))


def plan_all(rows: Int64, shape: LevelShape, cost: RunCost) -> Iterator[Lines]:
    """Plan the runs that open every block for each of these hidden rows; `place` is empty."""
    if not len(rows):
        return
    blocks = np.arange(shape.num_blocks)
    classes = shape.size_classes(blocks)
    none = np.empty(0, np.int64)
    for one in np.unique(classes):
        block = blocks[classes == one]
        size = int(shape.size[block].max())
        calls = min(len(rows), cost.max_calls(shape, size))
        for start in range(0, len(rows), calls):
            chosen = rows[start : start + calls]
            row = np.broadcast_to(chosen, (len(block), len(chosen)))
            in_place = _are_consecutive(block, shape)
            yield from _split(Lines(block, row, size, in_place, none, none), shape, cost)


@dataclass(frozen=True)
class _Calls:
    """Distinct calls, sorted by block and then by row."""

    block: Int64
    row: Int64

    def ranks(self) -> Int64:
        """Return the number of each call among those of its block."""
        ranks: Int64 = np.arange(len(self.block)) - np.searchsorted(self.block, self.block)
        return ranks


def _lay_out(calls: _Calls, pair: Int64, number: Int64, shape: LevelShape, cost: RunCost) -> Lines:
    """Lay out calls of blocks of about one size; `number` is the call of each pair."""
    rank = calls.ranks()
    size = int(shape.size[calls.block].max())
    is_one_block = calls.block[0] == calls.block[-1]
    limit = cost.max_calls(shape, size)
    width = min(limit if is_one_block else min(limit, MAX_CALLS), int(rank.max()) + 1)
    key, line = np.unique(calls.block * len(rank) + rank // width, return_inverse=True)
    block, at = key // len(rank), rank % width
    span = np.arange(block[0], block[-1] + 1)
    in_place = is_one_block or _fit_in_place(block, span, shape)
    if in_place and not is_one_block:
        line, block = calls.block - block[0], span
    row = np.zeros((len(block), width), np.int64)
    row[line, at] = calls.row
    place = (line * width + at)[number]
    order = np.argsort(place, kind="stable")
    return Lines(block, row, size, in_place, pair[order], place[order])


def _fit_in_place(block: Int64, span: Int64, shape: LevelShape) -> bool:
    """Return True if the lines of several blocks are better opened as the whole span.

    Where a block has several lines, all are copied: in place each would take a run of its own.
    """
    is_dense = len(span) <= _PASSES_OF_A_COPY * len(block)
    has_one_line_each = bool((np.diff(block) > 0).all())
    return has_one_line_each and is_dense and _are_consecutive(span, shape)


def _are_consecutive(block: Int64, shape: LevelShape) -> bool:
    """Return True if the blocks lie one after another and have one size."""
    follows = bool((np.diff(block) == 1).all())
    return follows and bool((shape.size[block] == shape.size[block[0]]).all())


def _split(lines: Lines, shape: LevelShape, cost: RunCost) -> Iterator[Lines]:
    """Divide the lines among runs that keep within the cost."""
    is_one_block = lines.block[0] == lines.block[-1]
    step = 1 if is_one_block and lines.in_place else cost.max_lines(shape, lines)
    for start in range(0, len(lines.block), step):
        part, calls = slice(start, start + step), lines.num_calls
        pairs = slice(*np.searchsorted(lines.place, [start * calls, (start + step) * calls]))
        yield Lines(
            lines.block[part],
            lines.row[part],
            lines.size,
            lines.in_place,
            lines.pair[pairs],
            lines.place[pairs] - start * calls,
        )
