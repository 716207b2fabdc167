"""A level: a matrix of rows divided into blocks, each of which has its own softmax."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .arrays import Array, Float32, Int64, expect_ndim, expect_shape, to_float32, to_int64
from .errors import WeightsError


@dataclass(frozen=True)
class Level:
    """Rows of one level and their division into blocks.

    Attributes:
        weight: [rows, hidden_size]
        bias: [rows]; -inf gives a row no probability
        offsets: [blocks + 1]; block b is rows offsets[b]:offsets[b + 1], never empty
    """

    weight: Float32
    bias: Float32
    offsets: Int64

    @property
    def num_rows(self) -> int:
        return len(self.bias)

    @property
    def num_blocks(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def block_sizes(self) -> Int64:
        return np.diff(self.offsets)

    @cached_property
    def block_of_row(self) -> Int64:
        """[rows]: the block of each row, which is its parent's row in the level above."""
        return np.repeat(np.arange(self.num_blocks), self.block_sizes)

    @property
    def block_size(self) -> int | None:
        """Number of rows of each block if all blocks have equally many, else None."""
        first = int(self.block_sizes[0])
        return first if bool((self.block_sizes == first).all()) else None


def build_level(name: str, weight: Array, bias: Array, offsets: Array) -> Level:
    """Build and check a level; raise WeightsError for shapes, values or offsets that do not fit."""
    expect_ndim(f"{name} weight", weight, "rows", "hidden_size")
    expect_shape(f"{name} bias", bias, weight.shape[:1])
    level = Level(
        to_float32(f"{name} weight", weight),
        to_float32(f"{name} bias", bias),
        to_int64(f"{name} offsets", offsets),
    )
    _expect_offsets(name, level)
    return level


def _expect_offsets(name: str, level: Level) -> None:
    expect_ndim(f"{name} offsets", level.offsets, "blocks + 1")
    if len(level.offsets) < 2 or level.offsets[0] != 0 or level.offsets[-1] != level.num_rows:
        first_and_last = [int(o) for o in level.offsets[[0, -1]]] if len(level.offsets) else []
        raise WeightsError(f"{name} offsets: expected 0 to {level.num_rows}, got {first_and_last}")
    if (level.block_sizes < 1).any():
        empty = int(np.argmax(level.block_sizes < 1))
        raise WeightsError(f"{name} block {empty}: expected at least one row, got none")
