"""One layer of an adaptive softmax, the head or a tail, in a graph.

    logits [m, rows] = (weight [rows, width] @ projection [width, H] @ hidden^T [H, m] + bias)^T

The weight is the left operand, which ONNX Runtime reads in place; it would pack a right operand
into a copy when the session loads. `Gemm` transposes the hidden rows itself and has a matrix-vector
kernel for one row; a `Transpose` before a `MatMul` has none. No other module reads these weights.

A weight in fewer bits is converted tile by tile, see `converted_product`.
"""

from dataclasses import dataclass

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from hsoftmax.models import AdaptiveSoftmax, ProjectedLayer

from .converted_product import converted_product
from .hidden_states import to_columns
from .ops import concat, full, ints, length, transpose
from .weights import Weights

_MAX_LOGITS_PER_CHUNK = 1 << 22  # 16 MB: small enough for memory, large enough for a fast product
_MIN_ROWS_PER_CHUNK = 16


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
            columns = to_columns(projected, self.layer.width)
            products = converted_product(self.weights, f"{self.name}.weight", columns)
            return transpose(self._add_bias(products))
        return transpose(op.gemm(self._tensor("weight"), projected, self._bias(), transB=1))

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
