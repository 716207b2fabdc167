"""One level in a graph: its blocks, the logits of a block, and where its rows hang.

Blocks that are alike are stored transposed, and so are the right operand; see products:

    logits(block) [m, K] = hidden [m, H] @ weight [H, K] + bias [K]

Of an int8 level:

    logits(block) [m, K] =
        (digits [m, H] @ weight [H, K] - zero [K]) * step [m, 1] * scale [K] + bias [K]

Other blocks lie row by row, and are the left operand: ONNX Runtime then streams them as they lie,
while as the right one they would be packed into a copy first:

    logits(block) [m, K] = (weight [K, H] @ hidden^T [H, m])^T + bias [K]

This is the only place that reads a level's weights, so nothing else knows how they are stored. A
block is converted after it was cut out: ONNX Runtime converts a whole tensor once, when a session
loads, into a private float32 copy.
"""

from dataclasses import dataclass, field

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from hsoftmax.models import HierarchicalSoftmax, Level

from .hidden_states import Columns, Digits, Rows, States, columns_of, digits_of
from .matmul import product, side_by_side, together
from .ops import as_float, as_int, between, integer, ints, static_size, transpose
from .weights import Weights

_TRANSPOSED = 3  # axes of weights that are, at least


@dataclass(frozen=True)
class Block:
    """K rows of one level, in one of four forms.

                       weight              bias
        row by row     [K, H]              [K]
        transposed     [n, 1, H, K / n]    [K], of one block perhaps [1, K]
          copied       [1, H, K]           [1, K]
          one a pair   [m, H, K]           [m, 1, K]    for `logits_apart` alone

    Attributes:
        scale, zero: as bias is, of an int8 level
        is_copy: whether it was read just now, and lies in cache
    """

    weight: Var
    bias: Var
    scale: Var | None = None
    zero: Var | None = None
    is_copy: bool = field(default=False, kw_only=True)

    @property
    def num_rows(self) -> int:
        """K, where it is known beforehand."""
        return static_size(self.bias, -1)


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
    def is_half(self) -> bool:
        return self.weights.dtype(f"level{self.number}.weight") == np.float16

    @property
    def is_transposed(self) -> bool:
        """Whether the weights are stored block by block as [H, K], see `models.storage.layout`."""
        return len(self.weights.shape(f"level{self.number}.weight")) == _TRANSPOSED

    @property
    def block_bytes(self) -> int:
        """What a block of average size takes as it is stored."""
        size = self.level.num_rows / self.level.num_blocks
        dtype = self.weights.dtype(f"level{self.number}.weight")
        return int(size * self.hidden_size) * dtype.itemsize

    def gathered(self, block: Var) -> Block:
        """Transposed blocks [m], one a pair, copied out of the level for `logits_apart`."""
        return Block(*(op.gather(part, block) for part in self.by_block(1)))

    def states_apart(self, hidden: Var) -> States:
        """hidden [m, 1, H], as `logits_apart` takes it."""
        return digits_of(hidden) if self.is_integer else Rows(hidden)

    def states(self, hidden: Var) -> States:
        """hidden [m, H], as `logits` takes it."""
        if self.is_integer:
            return digits_of(hidden)
        if self.is_transposed:
            return Rows(op.unsqueeze(hidden, ints(1)))
        return Columns(columns_of(hidden, self.hidden_size))

    def whole(self) -> Block:
        """Every row of the level."""
        return self.part(0)

    def part(self, start: int) -> Block:
        """The rows from `start` on."""
        return Block(*self._arrays(start, self.level.num_rows - start))

    def tiles(self, count: int, size: int) -> list[Var]:
        """The first count * size rows, as the arrays of so many Blocks of `size`: [count, ...]."""
        return self._arrays(0, count, size)

    def by_block(self, *ones: int) -> list[Var]:
        """The arrays of every one of transposed blocks: [blocks, H, K] and [blocks, *ones, K]."""
        shape = (self.level.num_blocks, *ones, self.level.block_size or 0)
        return [self.tensor("weight"), *(self.view(part, *shape) for part in self._by_row)]

    def _arrays(self, start: int, *shape: int) -> list[Var]:
        """weight, bias and perhaps more of the rows from `start` on, laid out in this shape."""
        name, first, layout = f"level{self.number}", start, (*shape, self.hidden_size)
        if self.is_transposed:
            block = self.level.block_size or 0
            size = self.hidden_size
            first, layout = start // block, (*shape[:-1], shape[-1] // block, 1, size, block)
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

    def copied(self, block: Var) -> Block:
        """One block [1], copied out of the level: that costs no more than reading it does."""
        if self.is_transposed:
            return Block(*(op.gather(part, block) for part in self.by_block()), is_copy=True)
        start, end = self.bounds(block)
        parts = (between(self.tensor(part), start, end) for part in ("weight", *self._by_row))
        return Block(*parts, is_copy=True)

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
    match states:
        case Rows(rows):
            multiply = together if block.is_copy else product
            return op.add(multiply(rows, block.weight), block.bias)
        case Columns(columns):
            return op.add(transpose(op.matmul(as_float(block.weight), columns)), block.bias)
        case Digits():
            return _integer_logits(block, states)
        case _:
            raise TypeError(f"states: expected Rows, Columns or Digits, got {type(states)}")


def _integer_logits(block: Block, states: Digits) -> Var:
    if len(block.weight.unwrap_tensor().shape or ()) < _TRANSPOSED:
        products = op.matmul_integer(states.values, transpose(block.weight))
    else:
        products = side_by_side(op.matmul_integer(states.values, block.weight), block.weight)
    return _logits_of(block, products, states.step)


def _logits_of(block: Block, products: Var, step: Var) -> Var:
    """What integer products [..., K] with states of these steps [..., 1] stand for.

    `zero` is what digits of 64 come to. Given 64 as a zero point instead, MatMulInteger takes
    half as long again for one row.
    """
    assert block.scale is not None, "an int8 level has scales"
    assert block.zero is not None, "and zeros"
    exact = op.cast(op.sub(products, block.zero), to=np.float32)
    return op.add(op.mul(op.mul(exact, step), block.scale), block.bias)


def logits_apart(block: Block, states: States) -> Var:
    """From transposed blocks in place, in the fewest operators: m times K, with axes of one.

    One block [1, 1, H, K] gives rows [m, 1, H], each by itself, and such digits [1, m, 1, K], and
    digits [m, H] [1, 1, m, K]; one a pair, [m, H, K], gives [m, 1, K].
    """
    if isinstance(states, Digits):
        return _logits_of(block, op.matmul_integer(states.values, block.weight), states.step)
    assert isinstance(states, Rows), "what transposed blocks take"
    return op.add(op.matmul(states.values, as_float(block.weight)), block.bias)
