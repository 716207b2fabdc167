"""Pairs sorted out by what they share.

A *pair* asks for one block on behalf of one hidden row. Equal pairs are one *call*, whose logits
are computed once; calls for one block share one pass over its weights: that is what a query costs.
"""

from dataclasses import dataclass

import spox.opset.ai.onnx.v21 as op
from spox import Var

from .ops import arange, between, concat, count, full, integer, ints, length, vector


@dataclass(frozen=True)
class Distinct:
    """What ONNX `Unique` says of a vector [n] with d distinct values."""

    value: Var  # [d] ascending
    first: Var  # [d] where each occurs first
    number: Var  # [n] which of them each element is
    times: Var  # [d] how often each occurs


@dataclass(frozen=True)
class Calls:
    """P pairs as c calls for d distinct blocks; calls are in the order of their blocks."""

    blocks: Distinct  # of the pairs
    row: Var  # [c] the hidden row of each call
    first: Var  # [d] the first call of each block,
    after: Var  # [d] and the one after its last
    call: Var  # [P] which of its block's calls each pair is


def sort_out(row: Var, block: Var, batch: Var) -> Calls:
    """The pairs (row [P], block [P]) of so many hidden rows [1]; at least one pair."""
    blocks = distinct(block)
    calls = distinct(op.add(op.mul(blocks.number, batch), row))
    by_block = distinct(op.div(calls.value, batch))
    others = between(by_block.first, ints(1), length(by_block.first))
    return Calls(
        blocks=blocks,
        row=op.mod(calls.value, batch),
        first=by_block.first,
        after=concat(others, length(calls.value)),
        call=op.sub(calls.number, op.gather(by_block.first, blocks.number)),
    )


def distinct(x: Var) -> Distinct:
    return Distinct(*op.unique(x, sorted=1))


@dataclass(frozen=True)
class Table:
    """Pairs laid out by block, [d, W]; W is the most pairs that any block has."""

    number: Var  # [P] which of the d blocks is each pair's
    rank: Var  # [P] which of its block's pairs it is
    width: Var  # [1] W
    height: Var  # [1] d

    def place(self, line: Var) -> Var:
        """[P] where each pair lies in a table of these lines [P], one after the other."""
        return op.add(op.mul(line, self.width), self.rank)

    def of(self, by_pair: Var) -> Var:
        """[P] -> [d, W], zero where a block has fewer pairs."""
        empty = op.cast_like(full(op.mul(self.height, self.width), 0), by_pair)
        filled = op.scatter_elements(empty, self.place(self.number), by_pair)
        return op.reshape(filled, concat(self.height, self.width))


def table_of(calls: Calls) -> Table:
    blocks = calls.blocks
    number, order = op.top_k(blocks.number, length(blocks.number), largest=0)
    first_pair = op.cumsum(blocks.times, integer(0), exclusive=1)
    rank = op.sub(arange(count(number)), op.gather(first_pair, number))
    return Table(
        number=blocks.number,
        rank=op.scatter_elements(order, order, rank),
        width=vector(op.reduce_max(blocks.times)),
        height=length(blocks.value),
    )
