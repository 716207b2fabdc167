"""What a SparseBlockDot's graph is asked in verification, and the reference's answers.

A product has no logits to bound: inputs are drawn at three sizes, and the tolerance is what float32
rounding may add up to over the terms of one sum.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hsoftmax.models import SparseBlockDot
from hsoftmax.models.arrays import Array, Float64
from hsoftmax.models.sparse_block_dot import block_dot

_SIZES = {"ordinary": 1.0, "large": 100.0, "extreme": 1e4}
_BATCH, _WINDOW = 3, 4
_RELATIVE = 1e-6  # of the largest sum of absolute terms: float32 holds 24 bits of it


@dataclass(frozen=True)
class BlockDotCase:
    """Inputs of about a given size, and the reference's output for them."""

    name: str
    feeds: dict[str, Array]
    output: Float64
    tolerance: float


def block_dot_cases(model: SparseBlockDot, rng: np.random.Generator) -> Iterator[BlockDotCase]:
    """Windows of random blocks, the first and the last block and repeats among them."""
    indices = {
        "input_index": _blocks(model.sizes.input_blocks, rng),
        "output_index": _blocks(model.sizes.output_blocks, rng),
    }
    drawn = rng.standard_normal((_BATCH, _WINDOW, model.sizes.input_size)).astype(np.float32)
    widest = float(np.abs(model.weight).max()) * _WINDOW * model.sizes.input_size
    for name, size in _SIZES.items():
        h = drawn * np.float32(size)
        terms = widest * float(np.abs(h).max()) + float(np.abs(model.bias).max())
        yield BlockDotCase(
            name, {"h": h, **indices}, block_dot(model, h, **indices), _RELATIVE * max(terms, 1.0)
        )


def _blocks(count: int, rng: np.random.Generator) -> Array:
    index = rng.integers(0, count, (_BATCH, _WINDOW))
    index[0, :3] = [0, count - 1, count - 1]
    return index
