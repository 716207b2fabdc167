"""One level in a graph: its blocks, the logits of a block, and where its rows hang.

    logits(block) [m, K] = (weight [K, H] @ hidden^T [H, m])^T + bias [K]

The block is the left operand: ONNX Runtime then streams it as it lies, while as the right one it
would be packed into a copy first. Of an int8 level it is the right one, and stored for that:

    logits(block) [m, K] =
        (digits [m, H] @ weight^T [H, K] - zero [K]) * step [m, 1] * scale [K] + bias [K]

This is the only place that reads a level's weights, so nothing else knows how they are stored. A
block is converted after it was cut out: ONNX Runtime converts a whole tensor once, when a session
loads, into a private float32 copy.
"""

from dataclasses import dataclass

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from models import HierarchicalSoftmax, Level

from .ops import as_float, as_int, between, column, concat, integer, ints, static_size, transpose
from .states import Columns, Digits, States, columns_of, digits_of
from .weights import Weights


@dataclass(frozen=True)
class Block:
    """Rows of one level: as many of its arrays as a graph function may need.

    Attributes:
        weight: [K, H]; of an int8 level with equal blocks, n of them as [n, H, K / n]
        bias: [K]
        scale, zero: [K], of an int8 level
    """

    weight: Var
    bias: Var
    scale: Var | None = None
    zero: Var | None = None

    @property
    def num_rows(self) -> int:
        """For blocks of a size known beforehand."""
        return static_size(self.bias, 0)


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

    @property
    def is_integer(self) -> bool:
        return self.weights.dtype(f"level{self.number}.weight") == np.int8

    @property
    def is_float32(self) -> bool:
        return self.weights.dtype(f"level{self.number}.weight") == np.float32

    @property
    def is_transposed(self) -> bool:
        """Whether the weights are stored block by block as [H, K], see models.precision."""
        return self.is_integer and self.level.block_size is not None

    def states(self, hidden: Var) -> States:
        """hidden [m, H], as `logits` takes it."""
        return digits_of(hidden) if self.is_integer else Columns(columns_of(hidden))

    def whole(self) -> Block:
        """Every row of the level."""
        return self.part(0)

    def part(self, start: int) -> Block:
        """The rows from `start` on."""
        return Block(*self._arrays(start, self.level.num_rows - start))

    def tiles(self, count: int, size: int) -> list[Var]:
        """The first count * size rows, as the arrays of `count` Blocks: [count, size, ...]."""
        return self._arrays(0, count, size)

    def by_block(self) -> list[Var]:
        """The arrays of every one of equal blocks: [blocks, ...]."""
        shape = (self.level.num_blocks, self.level.block_size or 0)
        if not self.is_transposed:
            return self._arrays(0, *shape)
        return [self.tensor("weight"), *(self.view(part, *shape) for part in self._by_row)]

    def _arrays(self, start: int, *shape: int) -> list[Var]:
        """weight, bias and perhaps more of the rows from `start` on, laid out in this shape."""
        name, first, layout = f"level{self.number}", start, (*shape, self.hidden_size)
        if self.is_transposed:
            block = self.level.block_size or 0
            first, layout = start // block, (*shape[:-1], shape[-1] // block, *layout[-1:], block)
        weight = self.weights.rows(f"{name}.weight", first, *layout)
        return [weight, *(self.weights.rows(f"{name}.{p}", start, *shape) for p in self._by_row)]

    @property
    def _by_row(self) -> list[str]:
        return ["bias", "scale", "zero"] if self.is_integer else ["bias"]

    def bounds(self, block: Var) -> tuple[Var, Var]:
        """First row of each of some blocks, and the row after its last."""
        size = self.level.block_size
        if size is None:
            offsets = self.tensor("offsets")
            return op.gather(offsets, block), op.gather(offsets, op.add(block, integer(1)))
        start = op.mul(block, integer(size))
        return start, op.add(start, integer(size))

    def rows(self, start: Var, end: Var) -> Block:
        """One block's rows, copied out of the level: that costs no more than reading them does."""
        by_row = (between(self.tensor(part), start, end) for part in self._by_row)
        return Block(self._cut(start, end), *by_row)

    def _cut(self, start: Var, end: Var) -> Var:
        if not self.is_transposed:
            return between(self.tensor("weight"), start, end)
        size, width = self.level.num_rows * self.hidden_size, integer(self.hidden_size)
        elements = self.view("weight", size, 1)  # of one axis, ONNX would infer each of its values
        cut = between(elements, op.mul(start, width), op.mul(end, width))
        return op.reshape(cut, ints(1, self.hidden_size, self.level.block_size or 0))

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


def logits(block: Block, states: States) -> Var:
    """[m, K]."""
    if isinstance(states, Columns):
        return op.add(transpose(op.matmul(as_float(block.weight), states.values)), block.bias)
    assert isinstance(states, Digits), "one of the two"
    return _integer_logits(block, states)


def _integer_logits(block: Block, states: Digits) -> Var:
    if len(block.weight.unwrap_tensor().shape or ()) == 2:
        products = op.matmul_integer(states.values, transpose(block.weight))
    else:
        products = _side_by_side(op.matmul_integer(states.values, block.weight), states)
    return _logits_of(block, products, states.step)


def _side_by_side(products: Var, states: Digits) -> Var:
    """Of transposed blocks [n, m, K] -> [m, n * K]."""
    blocks, size = static_size(products, 0), static_size(products, 2)
    if blocks == 1:
        return op.squeeze(products, ints(0))
    shape = concat(states.count(), ints(blocks * size))
    return op.reshape(op.transpose(products, perm=(1, 0, 2)), shape)


def _logits_of(block: Block, products: Var, step: Var) -> Var:
    """What integer products [m, K] with states of these steps [m, 1] stand for.

    `zero` is what digits of 64 come to. Given 64 as a zero point instead, MatMulInteger takes
    half as long again for one row.
    """
    assert block.scale is not None, "an int8 level has scales"
    assert block.zero is not None, "and zeros"
    exact = op.cast(op.sub(products, block.zero), to=np.float32)
    return op.add(op.mul(op.mul(exact, step), block.scale), block.bias)


def gathered_logits(level: LevelWeights, block: Var, hidden: Var, states: States, row: Var) -> Var:
    """Equal blocks [n], and for each the hidden row [n] that asks for it -> [n, K].

    `states` are the hidden rows for an int8 level, rounded once for all levels.
    """
    weight, *by_row = (op.gather(part, block) for part in level.by_block())
    if isinstance(states, Digits):
        return _gathered_integers(Block(weight, *by_row), states, row)
    rows = op.unsqueeze(op.gather(hidden, row), ints(1))
    products = op.matmul(rows, op.transpose(as_float(weight), perm=(0, 2, 1)))
    return op.add(op.squeeze(products, ints(1)), by_row[0])


def _gathered_integers(blocks: Block, states: Digits, row: Var) -> Var:
    """Several blocks [n, H, K], each times the one of the states that row [n] names -> [n, K]."""
    products = op.matmul_integer(op.gather(states.values, column(row)), blocks.weight)
    return _logits_of(blocks, op.squeeze(products, ints(1)), op.gather(states.step, row))
