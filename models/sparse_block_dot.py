"""Block-sparse dot product: selected input blocks times selected output blocks of a block matrix.

    output[b, j] = bias[output_index[b, j]]
                   + sum over i of h[b, i] . weight[input_index[b, i], output_index[b, j]]

The bias is added once. An input block that is named twice counts twice; an output block that is
named twice is computed twice. Block-sparse layers and Theano's `h_softmax` use this operation:
`theano.tensor.nnet.blocksparse.sparse_block_dot`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .arrays import Array, Float32, Float64, expect_ndim, expect_shape, to_float32
from .errors import QueryError, WeightsError

__all__ = [
    "BlockSizes",
    "SparseBlockDot",
    "attributes",
    "block_dot",
    "build",
    "expect_query",
    "from_tensors",
    "to_tensors",
]


@dataclass(frozen=True)
class BlockSizes:
    """Number of blocks on each side, and the sizes of one block's input and output."""

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
        """None: the layer reads windows of blocks instead of one hidden row."""
        return

    @property
    def num_targets(self) -> None:
        """None: the layer has no targets."""
        return

    @property
    def num_clusters(self) -> None:
        """None: the layer has no clusters."""
        return

    @property
    def sizes(self) -> BlockSizes:
        return BlockSizes(*map(int, self.weight.shape))


def build(weight: Array, bias: Array) -> SparseBlockDot:
    """Build and check a model; raise WeightsError for shapes or values that do not fit."""
    expect_ndim("W", weight, "iBlocks", "oBlocks", "iSize", "oSize")
    expect_shape("b", bias, (weight.shape[1], weight.shape[3]))
    if 0 in weight.shape:
        raise WeightsError(f"W: expected no empty axis, got {list(weight.shape)}")
    return SparseBlockDot(to_float32("W", weight), to_float32("b", bias))


def to_tensors(model: SparseBlockDot) -> dict[str, Array]:
    """Return the model's arrays by their names in the bundle."""
    return {"weight": model.weight, "bias": model.bias}


def attributes(model: SparseBlockDot) -> dict[str, Any]:
    """Return the sizes that a client needs to form a query."""
    return asdict(model.sizes)


def from_tensors(tensors: Mapping[str, Array], attributes: Mapping[str, Any]) -> SparseBlockDot:
    """Build the model from the result of `to_tensors`, without copies or checks."""
    return SparseBlockDot(tensors["weight"], tensors["bias"])


def block_dot(model: SparseBlockDot, h: Array, input_index: Array, output_index: Array) -> Float64:
    """Return the output [batch, oWin, oSize] in float64.

    `h` [iWin, iSize] with one-dimensional indices is treated as a batch of one.

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


def expect_query(sizes: BlockSizes, h: Array, input_index: Array, output_index: Array) -> None:
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
    out_of_range = (index < 0) | (index >= blocks)
    if out_of_range.any():
        raise QueryError(
            f"{name}: expected 0 to {blocks - 1}, got {int(index[out_of_range].flat[0])}"
        )
