"""One level in a graph: its blocks, the logits of a block, and the parents of its rows.

Blocks of equal size are stored transposed and are the right operand, see `matmul`:

    logits(block) [m, K] = hidden [m, H] @ weight [H, K] + bias [K]

For an int8 level:

    logits(block) [m, K] =
        (quantised hidden [m, H] @ weight [H, K] - zero [K]) * step [m, 1] * scale [K] + bias [K]

Other blocks are stored row by row and are the left operand, which ONNX Runtime reads in place; it
would first pack a right operand into a copy:

    logits(block) [m, K] = (weight [K, H] @ hidden^T [H, m])^T + bias [K]

No other module reads a level's weights, so only this one depends on their layout and precision. A
block is converted to float32 after it is cut out of the level: ONNX Runtime would convert a whole
tensor when the session loads, into a private copy.
"""

from dataclasses import dataclass, field

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from hsoftmax.models import HierarchicalSoftmax, Level

from .hidden_states import (
    HiddenColumns,
    HiddenRows,
    HiddenStates,
    QuantisedHidden,
    quantise,
    to_columns,
)
from .matmul import batched_product, concat_products, product
from .ops import as_float, as_int, between, integer, ints, static_size, transpose
from .weights import Weights

_MIN_TRANSPOSED_AXES = 3


@dataclass(frozen=True)
class BlockWeights:
    """K rows of one level, in one of four layouts.

                       weight              bias
        row by row     [K, H]              [K]
        transposed     [n, 1, H, K / n]    [K], of one block perhaps [1, K]
          copied       [1, H, K]           [1, K]
          per pair     [m, H, K]           [m, 1, K]    for `broadcast_logits` only

    Attributes:
        scale, zero: shaped as bias, for an int8 level
        is_copy: True if the block was just copied and is in cache
    """

    weight: Var
    bias: Var
    scale: Var | None = None
    zero: Var | None = None
    is_copy: bool = field(default=False, kw_only=True)

    @property
    def num_rows(self) -> int:
        """K, if it is static."""
        return static_size(self.bias, -1)


@dataclass(frozen=True)
class LevelWeights:
    """The tensors of one level as graph arguments."""

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
        """True if the weight is float16 or bfloat16, whose bits are uint16 in NumPy."""
        return self.weights.dtype(f"level{self.number}.weight") in (np.float16, np.uint16)

    @property
    def is_transposed(self) -> bool:
        """True if the weight is stored in transposed blocks, see `models.storage.layout`."""
        return len(self.weights.shape(f"level{self.number}.weight")) == _MIN_TRANSPOSED_AXES

    @property
    def block_bytes(self) -> int:
        """Number of bytes of an average block as it is stored."""
        size = self.level.num_rows / self.level.num_blocks
        dtype = self.weights.dtype(f"level{self.number}.weight")
        return int(size * self.hidden_size) * dtype.itemsize

    def gather_blocks(self, block: Var) -> BlockWeights:
        """Copy transposed blocks [m], one per pair, out of the level, for `broadcast_logits`."""
        return BlockWeights(*(op.gather(part, block) for part in self.block_arrays(1)))

    def broadcast_states(self, hidden: Var) -> HiddenStates:
        """Convert hidden [m, 1, H] to the form that `broadcast_logits` takes."""
        return quantise(hidden) if self.is_integer else HiddenRows(hidden)

    def states(self, hidden: Var) -> HiddenStates:
        """Convert hidden [m, H] to the form that `logits` takes."""
        if self.is_integer:
            return quantise(hidden)
        if self.is_transposed:
            return HiddenRows(op.unsqueeze(hidden, ints(1)))
        return HiddenColumns(to_columns(hidden, self.hidden_size))

    def all_rows(self) -> BlockWeights:
        """Return all rows of the level."""
        return self.rows_from(0)

    def rows_from(self, start: int) -> BlockWeights:
        """Return the rows from `start` on."""
        return BlockWeights(*self._arrays(start, self.level.num_rows - start))

    def tile_arrays(self, count: int, size: int) -> list[Var]:
        """Return the first count * size rows as the arrays of `count` blocks, [count, ...]."""
        return self._arrays(0, count, size)

    def block_arrays(self, *ones: int) -> list[Var]:
        """Return the arrays of all transposed blocks: [blocks, H, K] and [blocks, *ones, K]."""
        shape = (self.level.num_blocks, *ones, self.level.block_size or 0)
        return [
            self.tensor("weight"),
            *(self.view(part, *shape) for part in self._row_parts),
        ]

    def _arrays(self, start: int, *shape: int) -> list[Var]:
        """Return weight, bias, and of an int8 level scale and zero, from row `start` on."""
        name, first_index, layout = f"level{self.number}", start, (*shape, self.hidden_size)
        if self.is_transposed:
            block = self.level.block_size or 0
            size = self.hidden_size
            first_index, layout = start // block, (*shape[:-1], shape[-1] // block, 1, size, block)
        weight = self.weights.rows(f"{name}.weight", first_index, *layout)
        return [weight, *(self.weights.rows(f"{name}.{p}", start, *shape) for p in self._row_parts)]

    @property
    def _row_parts(self) -> list[str]:
        return ["bias", "scale", "zero"] if self.is_integer else ["bias"]

    def bounds(self, block: Var) -> tuple[Var, Var]:
        """Return the first row of each block, and the row after its last."""
        size = self.level.block_size
        if size is None:
            offsets = self.tensor("offsets")
            return op.gather(offsets, block), op.gather(offsets, op.add(block, integer(1)))
        start = op.mul(block, integer(size))
        return start, op.add(start, integer(size))

    def copy_block(self, block: Var) -> BlockWeights:
        """Copy one block [1] out of the level; the copy costs no more than one read."""
        if self.is_transposed:
            return BlockWeights(
                *(op.gather(part, block) for part in self.block_arrays()), is_copy=True
            )
        start, end = self.bounds(block)
        parts = (between(self.tensor(part), start, end) for part in ("weight", *self._row_parts))
        return BlockWeights(*parts, is_copy=True)

    def block_of_row(self, row: Var) -> Var:
        """Return the block of each row, which is its parent's row in the level above."""
        size = self.level.block_size
        if size is None:
            return as_int(op.gather(self.tensor("block_of_row"), row))
        return op.div(row, integer(size))

    def position(self, row: Var, block: Var) -> Var:
        """Return the position of each row in its block."""
        size = self.level.block_size
        return op.sub(row, self.bounds(block)[0]) if size is None else op.mod(row, integer(size))

    def alive(self, start: Var | None = None, end: Var | None = None) -> Var | None:
        """Return 0 for each row with a target below it and -inf for the others, as a mask to add.

        It covers all rows or the rows start:end. It is None if the level has no row that keeps
        probability without a target.
        """
        if f"level{self.number}.alive" not in self.weights:
            return None
        mask = self.tensor("alive")
        return mask if start is None or end is None else between(mask, start, end)


def levels(model: HierarchicalSoftmax, weights: Weights) -> list[LevelWeights]:
    return [LevelWeights(level, weights, i) for i, level in enumerate(model.levels)]


def logits(block: BlockWeights, states: HiddenStates) -> Var:
    """Return the logits [m, K] of a block."""
    match states:
        case HiddenRows(rows):
            multiply = batched_product if block.is_copy else product
            return op.add(multiply(rows, block.weight), block.bias)
        case HiddenColumns(columns):
            return op.add(transpose(op.matmul(as_float(block.weight), columns)), block.bias)
        case QuantisedHidden():
            return _integer_logits(block, states)
        case _:
            raise TypeError(f"states: expected Rows, Columns or Digits, got {type(states)}")


def _integer_logits(block: BlockWeights, states: QuantisedHidden) -> Var:
    if len(block.weight.unwrap_tensor().shape or ()) < _MIN_TRANSPOSED_AXES:
        products = op.matmul_integer(states.values, transpose(block.weight))
    else:
        products = concat_products(op.matmul_integer(states.values, block.weight), block.weight)
    return _dequantise_logits(block, products, states.step)


def _dequantise_logits(block: BlockWeights, products: Var, step: Var) -> Var:
    """Convert integer products [..., K] with states of these steps [..., 1] to float32 logits.

    `zero` corrects for the zero point 64 of the states. MatMulInteger's own zero point input would
    take half as long again for one row.
    """
    assert block.scale is not None, "an int8 level has scales"
    assert block.zero is not None, "and zeros"
    exact = op.cast(op.sub(products, block.zero), to=np.float32)
    return op.add(op.mul(op.mul(exact, step), block.scale), block.bias)


def broadcast_logits(block: BlockWeights, states: HiddenStates) -> Var:
    """Return logits from transposed blocks in place, with the fewest operators.

    The result has m * K elements and axes of size one. A block [1, 1, H, K] with rows [m, 1, H]
    gives [1, m, 1, K], as does the same shape quantised; quantised [m, H] gives [1, 1, m, K];
    blocks per pair [m, H, K] give [m, 1, K].
    """
    if isinstance(states, QuantisedHidden):
        return _dequantise_logits(
            block, op.matmul_integer(states.values, block.weight), states.step
        )
    assert isinstance(states, HiddenRows), "what transposed blocks take"
    return op.add(op.matmul(states.values, as_float(block.weight)), block.bias)
