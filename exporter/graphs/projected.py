"""One layer of an adaptive softmax, the head or a tail, in a graph.

    logits [m, rows] = (weight [rows, width] @ projection [width, H] @ hidden^T [H, m] + bias)^T

The weight is the left operand, which ONNX Runtime reads in place; it would pack a right operand
into a copy when the session loads. `Gemm` transposes the hidden rows itself and has a matrix-vector
kernel for one row; a `Transpose` before a `MatMul` has none. No other module reads these weights.

A weight of bfloat16 is converted tile by tile in a Scan: ONNX Runtime would convert a whole tensor
when the session loads, into a private copy.
"""

from dataclasses import dataclass

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from hsoftmax.models import AdaptiveSoftmax, ProjectedLayer

from .hidden_states import to_columns
from .ops import as_float, concat, full, ints, length, transpose
from .weights import Weights

_MAX_LOGITS_PER_CHUNK = 1 << 22  # 16 MB: small enough for memory, large enough for a fast product
_MIN_ROWS_PER_CHUNK = 16
_TILE_ROWS = 1024


@dataclass(frozen=True)
class ProjectedWeights:
    """The tensors of one layer as graph arguments."""

    layer: ProjectedLayer
    weights: Weights
    name: str

    @property
    def size(self) -> int:
        return self.layer.num_rows

    @property
    def rows_per_chunk(self) -> int:
        """Number of hidden rows in one chunk."""
        return max(_MIN_ROWS_PER_CHUNK, _MAX_LOGITS_PER_CHUNK // self.size)

    def log_softmax(self, hidden: Var) -> Var:
        """[m, hidden_size] -> [m, rows]."""
        return op.log_softmax(self._logits(hidden), axis=1)

    def _logits(self, hidden: Var) -> Var:
        if self.layer.width == 0:  # each logit is its bias
            zeros = full(concat(length(hidden), ints(self.size)), 0.0)
            return zeros if self.layer.bias is None else op.add(zeros, self._tensor("bias"))
        projected = hidden
        if self.layer.projection is not None:
            projected = transpose(op.gemm(self._tensor("projection"), hidden, transB=1))
        if self.weights.dtype(f"{self.name}.weight") != np.float32:
            return transpose(self._add_bias(self._converted_product(projected)))
        return transpose(op.gemm(self._tensor("weight"), projected, self._bias(), transB=1))

    def _converted_product(self, projected: Var) -> Var:
        """[m, width] -> [rows, m]: converts a tile of the weight and multiplies it, one by one."""
        name, width = f"{self.name}.weight", self.layer.width
        size = min(self.size, _TILE_ROWS)
        tiles, rest = divmod(self.size, size)
        columns = to_columns(projected, width)
        # Reading the number of columns keeps them out of the body: see `distinct_blocks`.
        shape = concat(ints(tiles * size), length(columns, axis=1))
        stacked = op.scan(
            [self.weights.rows(name, 0, tiles, size, width)],
            body=lambda tile: [op.matmul(as_float(tile), columns)],
            num_scan_inputs=1,
        )[0]
        products = op.reshape(stacked, shape)
        if not rest:
            return products
        last = as_float(self.weights.rows(name, tiles * size, rest, width))
        return concat(products, op.matmul(last, columns))

    def _add_bias(self, logits: Var) -> Var:
        bias = self._bias()
        return logits if bias is None else op.add(logits, bias)

    def _bias(self) -> Var | None:
        """Return the bias as [rows, 1], a view of the tensor's bytes, or None."""
        if self.layer.bias is None:
            return None
        return self.weights.view(f"{self.name}.bias", self.size, 1)

    def _tensor(self, part: str) -> Var:
        return self.weights[f"{self.name}.{part}"]


def head(model: AdaptiveSoftmax, weights: Weights) -> ProjectedWeights:
    return ProjectedWeights(model.head, weights, "head")


def tails(model: AdaptiveSoftmax, weights: Weights) -> list[ProjectedWeights]:
    return [ProjectedWeights(tail, weights, f"tail{i}") for i, tail in enumerate(model.tails)]
