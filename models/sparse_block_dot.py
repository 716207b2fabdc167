"""Block-sparse dot: chosen input blocks times chosen output blocks of one block matrix.

    output[b, j] = bias[output_index[b, j]]
                   + sum over i of h[b, i] . weight[input_index[b, i], output_index[b, j]]

The bias is added once. An input block named twice counts twice; an output block named twice is
answered twice. This is the primitive that block-sparse layers and Theano's `h_softmax` are made
of: `theano.tensor.nnet.blocksparse.sparse_block_dot`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .arrays import Array, Float32, Float64, expect_ndim, expect_shape, floats
from .errors import QueryError, WeightsError

__all__ = [
    "Sizes",
    "SparseBlockDot",
    "attributes",
    "block_dot",
    "build",
    "expect_query",
    "from_tensors",
    "to_tensors",
]


@dataclass(frozen=True)
class Sizes:
    """How many blocks there are, and what one of them takes and gives."""

    input_blocks: int
    output_blocks: int
    input_size: int
    output_size: int


@dataclass(frozen=True)
class SparseBlockDot:
    """A matrix of blocks and the biases of its output blocks.

    Attributes:
        weight: [input blocks, output blocks, input size, output size]
        bias: [output blocks, output size]
    """

    weight: Float32
    bias: Float32

    @property
    def hidden_size(self) -> None:
        """It has no hidden row: it reads windows of blocks."""
        return

    @property
    def num_targets(self) -> None:
        """It has no targets: it is a layer."""
        return

    @property
    def num_clusters(self) -> None:
        """It has no clusters either."""
        return

    @property
    def sizes(self) -> "Sizes":
        return Sizes(*map(int, self.weight.shape))


def build(weight: Array, bias: Array) -> SparseBlockDot:
    """A checked model. Raises WeightsError for shapes or values that do not fit."""
    expect_ndim("W", weight, "iBlocks", "oBlocks", "iSize", "oSize")
    expect_shape("b", bias, (weight.shape[1], weight.shape[3]))
    if 0 in weight.shape:
        raise WeightsError(f"W: expected no empty axis, got {list(weight.shape)}")
    return SparseBlockDot(floats("W", weight), floats("b", bias))


def to_tensors(model: SparseBlockDot) -> dict[str, Array]:
    """Every array of the model, by its name in the bundle."""
    return {"weight": model.weight, "bias": model.bias}


def attributes(model: SparseBlockDot) -> dict[str, Any]:
    """What a client must know to ask."""
    return asdict(model.sizes)


def from_tensors(tensors: Mapping[str, Array], attributes: Mapping[str, Any]) -> SparseBlockDot:
    """The model whose `to_tensors` these are; nothing is copied or checked."""
    return SparseBlockDot(tensors["weight"], tensors["bias"])


def block_dot(model: SparseBlockDot, h: Array, input_index: Array, output_index: Array) -> Float64:
    """[batch, oWin, oSize] in float64. `h` [iWin, iSize] with flat indices is a batch of one.

    Raises:
        QueryError: shapes that do not fit, or a block out of range.
    """
    if h.ndim == 2 and input_index.ndim == output_index.ndim == 1:
        h, input_index, output_index = h[None], input_index[None], output_index[None]
    expect_query(model.sizes, h, input_index, output_index)
    weight, states = model.weight.astype(np.float64), np.asarray(h, dtype=np.float64)
    output = model.bias.astype(np.float64)[output_index]
    for b, i, j in np.ndindex(len(h), input_index.shape[1], output_index.shape[1]):
        output[b, j] += states[b, i] @ weight[input_index[b, i], output_index[b, j]]
    return output


def expect_query(sizes: Sizes, h: Array, input_index: Array, output_index: Array) -> None:
    """Raise QueryError unless h is [batch, iWin, iSize] and each index names a block."""
    if h.ndim != 3 or h.shape[2] != sizes.input_size:
        raise QueryError(f"h: expected [batch, iWin, {sizes.input_size}], got {list(h.shape)}")
    batch, window = h.shape[:2]
    if input_index.shape != (batch, window):
        raise QueryError(f"input_index: expected {[batch, window]}, got {list(input_index.shape)}")
    if output_index.ndim != 2 or len(output_index) != batch:
        raise QueryError(f"output_index: expected [{batch}, oWin], got {list(output_index.shape)}")
    _expect_blocks("input_index", input_index, sizes.input_blocks)
    _expect_blocks("output_index", output_index, sizes.output_blocks)


def _expect_blocks(name: str, index: Array, blocks: int) -> None:
    if index.dtype.kind not in "iu":
        raise QueryError(f"{name}: expected integers, got dtype {index.dtype}")
    wrong = (index < 0) | (index >= blocks)
    if wrong.any():
        raise QueryError(f"{name}: expected 0 to {blocks - 1}, got {int(index[wrong].flat[0])}")
