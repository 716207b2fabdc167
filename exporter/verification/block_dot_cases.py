"""Verification cases for a SparseBlockDot graph: inputs and the reference's outputs.

A product has no logits to bound. Inputs are drawn at three scales, and the tolerance is the float32
rounding error that may add up over the terms of one sum.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hsoftmax.models import SparseBlockDot
from hsoftmax.models.arrays import Array, Float64
from hsoftmax.models.sparse_block_dot import block_dot

_INPUT_SCALES = {"ordinary": 1.0, "large": 100.0, "extreme": 1e4}
_BATCH, _WINDOW = 3, 4
_RELATIVE_TOLERANCE = 1e-6  # of the largest sum of absolute terms; float32 has 24 bits


@dataclass(frozen=True)
class BlockDotCase:
    """Inputs of one scale, and the reference's output for them."""

    name: str
    feeds: dict[str, Array]
    output: Float64
    tolerance: float


def block_dot_cases(model: SparseBlockDot, rng: np.random.Generator) -> Iterator[BlockDotCase]:
    """Yield windows of random blocks that include the first block, the last block and repeats."""
    indices = {
        "input_index": _random_blocks(model.sizes.input_blocks, rng),
        "output_index": _random_blocks(model.sizes.output_blocks, rng),
    }
    inputs = rng.standard_normal((_BATCH, _WINDOW, model.sizes.input_size)).astype(np.float32)
    max_weight_sum = float(np.abs(model.weight).max()) * _WINDOW * model.sizes.input_size
    for name, scale in _INPUT_SCALES.items():
        h = inputs * np.float32(scale)
        max_sum = max_weight_sum * float(np.abs(h).max()) + float(np.abs(model.bias).max())
        yield BlockDotCase(
            name,
            {"h": h, **indices},
            block_dot(model, h, **indices),
            _RELATIVE_TOLERANCE * max(max_sum, 1.0),
        )


def _random_blocks(count: int, rng: np.random.Generator) -> Array:
    index = rng.integers(0, count, (_BATCH, _WINDOW))
    index[0, :3] = [0, count - 1, count - 1]
    return index
