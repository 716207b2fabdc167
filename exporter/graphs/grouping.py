"""Groups pairs by the block that they need.

A *pair* needs the log-softmax of one block for one hidden row. Equal pairs share one *logits row*,
so that its logits are computed once. All logits rows of a block share one pass over the block's
weights, which is the main cost of a query.
"""

from dataclasses import dataclass

import spox.opset.ai.onnx.v21 as op
from spox import Var

from .ops import arange, between, concat, count, full, integer, ints, length, vector


@dataclass(frozen=True)
class Distinct:
    """The d distinct values of a vector [n], as ONNX `Unique` returns them."""

    values: Var  # [d] ascending
    first: Var  # [d] index of the first occurrence of each value
    inverse: Var  # [n] index in `values` of each element
    counts: Var  # [d] number of occurrences of each value


@dataclass(frozen=True)
class GroupedPairs:
    """P pairs as c logits rows of d distinct blocks, in the order of the blocks."""

    blocks: Distinct  # of the pairs
    row: Var  # [c] hidden row of each logits row
    start: Var  # [d] first logits row of each block
    end: Var  # [d] the logits row after the block's last
    logits_row: Var  # [P] logits row of each pair, counted within its block


def group_pairs(row: Var, block: Var, batch: Var) -> GroupedPairs:
    """Group the pairs (row [P], block [P]), at least one, of `batch` [1] hidden rows."""
    blocks = distinct(block)
    logits_rows = distinct(op.add(op.mul(blocks.inverse, batch), row))
    by_block = distinct(op.div(logits_rows.values, batch))
    others = between(by_block.first, ints(1), length(by_block.first))
    return GroupedPairs(
        blocks=blocks,
        row=op.mod(logits_rows.values, batch),
        start=by_block.first,
        end=concat(others, length(logits_rows.values)),
        logits_row=op.sub(logits_rows.inverse, op.gather(by_block.first, blocks.inverse)),
    )


def distinct(x: Var) -> Distinct:
    return Distinct(*op.unique(x, sorted=1))


@dataclass(frozen=True)
class PairTable:
    """Positions of the pairs in a table [d, W]: one row per distinct block, one column per pair.

    W is the largest number of pairs of a block.
    """

    block: Var  # [P] index of each pair's block among the distinct blocks
    rank: Var  # [P] index of each pair among the pairs of its block
    width: Var  # [1] W
    height: Var  # [1] d

    def position(self, row: Var) -> Var:
        """Return [P]: the position of each pair in the flat table, if it is in this row [P]."""
        return op.add(op.mul(row, self.width), self.rank)

    def fill(self, values: Var) -> Var:
        """Lay out values [P] as [d, W], with zeros after the last pair of a block."""
        empty = op.cast_like(full(op.mul(self.height, self.width), 0), values)
        filled = op.scatter_elements(empty, self.position(self.block), values)
        return op.reshape(filled, concat(self.height, self.width))


def pair_table(pairs: GroupedPairs) -> PairTable:
    blocks = pairs.blocks
    sorted_blocks, order = op.top_k(blocks.inverse, length(blocks.inverse), largest=0)
    first_pair = op.cumsum(blocks.counts, integer(0), exclusive=1)
    rank = op.sub(arange(count(sorted_blocks)), op.gather(first_pair, sorted_blocks))
    return PairTable(
        block=blocks.inverse,
        rank=op.scatter_elements(order, order, rank),
        width=vector(op.reduce_max(blocks.counts)),
        height=length(blocks.values),
    )
