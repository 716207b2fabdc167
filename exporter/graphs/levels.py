"""One level in a graph: its blocks, the logits of a block, and where its rows hang.

    logits(block) [m, K] = (weight [K, H] @ hidden^T [H, m])^T + bias [K]

The block is the left operand: ONNX Runtime then streams it as it lies, while as the right one it
would be packed into a copy first. This is the only place that reads a level's weights, so a
precision that stores them otherwise changes nothing else.
"""

from dataclasses import dataclass

import spox.opset.ai.onnx.v21 as op
from spox import Var

from models import HierarchicalSoftmax, Level

from .ops import as_int, between, integer, ints, static_size, transpose
from .weights import Weights


@dataclass(frozen=True)
class Block:
    """Rows of one level: as many of its arrays as a graph function may need."""

    weight: Var
    bias: Var

    @property
    def num_rows(self) -> int:
        """For blocks of a size known beforehand."""
        return static_size(self.weight, 0)


@dataclass(frozen=True)
class LevelWeights:
    """A level's arrays in a graph."""

    level: Level
    weights: Weights
    number: int

    def tensor(self, part: str) -> Var:
        return self.weights[f"level{self.number}.{part}"]

    def view(self, part: str, *shape: int) -> Var:
        return self.weights.view(f"level{self.number}.{part}", *shape)

    @property
    def hidden_size(self) -> int:
        return int(self.level.weight.shape[1])

    def whole(self) -> Block:
        """Every row of the level."""
        return Block(self.tensor("weight"), self.tensor("bias"))

    def tiles(self, count: int, size: int) -> tuple[Var, Var]:
        """The first count * size rows as [count, size, H] and [count, size]."""
        name = f"level{self.number}"
        weight = self.weights.rows(f"{name}.weight", 0, count, size, self.hidden_size)
        return weight, self.weights.rows(f"{name}.bias", 0, count, size)

    def part(self, start: int) -> Block:
        """The rows from `start` on."""
        name, size = f"level{self.number}", self.level.num_rows - start
        weight = self.weights.rows(f"{name}.weight", start, size, self.hidden_size)
        return Block(weight, self.weights.rows(f"{name}.bias", start, size))

    def bounds(self, block: Var) -> tuple[Var, Var]:
        """First row of each of some blocks, and the row after its last."""
        size = self.level.block_size
        if size is None:
            offsets = self.tensor("offsets")
            return op.gather(offsets, block), op.gather(offsets, op.add(block, integer(1)))
        start = op.mul(block, integer(size))
        return start, op.add(start, integer(size))

    def rows(self, start: Var, end: Var) -> Block:
        """Some rows, copied out of the level: that costs no more than reading them does."""
        return Block(*(between(self.tensor(part), start, end) for part in ("weight", "bias")))

    def block_of_row(self, row: Var) -> Var:
        """The block that each row is in, which is its parent's row in the level above."""
        size = self.level.block_size
        if size is None:
            return as_int(op.gather(self.tensor("block_of_row"), row))
        return op.div(row, integer(size))

    def position(self, row: Var, block: Var) -> Var:
        """Where each row lies in its block."""
        size = self.level.block_size
        return op.sub(row, self.bounds(block)[0]) if size is None else op.mod(row, integer(size))

    def alive(self, start: Var | None = None, end: Var | None = None) -> Var | None:
        """Of all or some rows: 0, or -inf for those that keep probability but hold no target.

        None where there are no such rows.
        """
        if f"level{self.number}.alive" not in self.weights:
            return None
        whole = self.tensor("alive")
        return whole if start is None or end is None else between(whole, start, end)


def levels(model: HierarchicalSoftmax, weights: Weights) -> list[LevelWeights]:
    return [LevelWeights(level, weights, i) for i, level in enumerate(model.levels)]


def columns_of(hidden: Var) -> Var:
    """hidden [B, H] -> [H, B], for `logits`.

    The Reshape is there to be in the way: ONNX Runtime would fuse a Transpose into the product
    after it, and lose its matrix-vector kernel, three times as fast for one row.
    """
    return op.reshape(transpose(hidden), ints(static_size(hidden, 1), -1))


def logits(block: Block, columns: Var) -> Var:
    """columns [H, m] (hidden, transposed) -> [m, K]."""
    return op.add(transpose(op.matmul(block.weight, columns)), block.bias)


def gathered_logits(level: LevelWeights, block: Var, hidden: Var) -> Var:
    """Equal blocks [n] and a hidden row each [n, H] -> [n, K]."""
    blocks, size = level.level.num_blocks, level.level.block_size or 0
    weight = op.gather(level.view("weight", blocks, size, level.hidden_size), block)
    bias = op.gather(level.view("bias", blocks, size), block)
    products = op.matmul(op.unsqueeze(hidden, ints(1)), op.transpose(weight, perm=(0, 2, 1)))
    return op.add(op.squeeze(products, ints(1)), bias)
