"""The head or a tail of an adaptive softmax in a graph.

    logits [m, rows] = (weight [rows, width] @ projection [width, H] @ hidden^T [H, m] + bias)^T

The weights are the left operand: ONNX Runtime then streams them as they lie, while as the right one
it would pack them into a copy when the session loads. `Gemm` transposes the hidden states itself,
and has a matrix-vector kernel for one row; a `Transpose` before a `MatMul` has not. This is the
only place that reads the weights.
"""

from dataclasses import dataclass

import spox.opset.ai.onnx.v21 as op
from spox import Var

from hsoftmax.models import AdaptiveSoftmax, Projected

from .ops import concat, full, ints, length, transpose
from .weights import Weights

_LOGITS_AT_ONCE = 1 << 22  # 16 MB of them: few enough to hold, many enough for a fast product
_FEWEST_ROWS = 16


@dataclass(frozen=True)
class ProjectedWeights:
    """A layer's arrays in a graph."""

    layer: Projected
    weights: Weights
    name: str

    @property
    def size(self) -> int:
        return self.layer.num_rows

    @property
    def rows_at_once(self) -> int:
        """How many hidden rows to take in one chunk."""
        return max(_FEWEST_ROWS, _LOGITS_AT_ONCE // self.size)

    def log_softmax(self, hidden: Var) -> Var:
        """[m, hidden_size] -> [m, rows]."""
        return op.log_softmax(self._logits(hidden), axis=1)

    def _logits(self, hidden: Var) -> Var:
        if self.layer.width == 0:  # nothing left to look at: each row has its bias
            zeros = full(concat(length(hidden), ints(self.size)), 0.0)
            return zeros if self.layer.bias is None else op.add(zeros, self._tensor("bias"))
        seen = hidden
        if self.layer.projection is not None:
            seen = transpose(op.gemm(self._tensor("projection"), hidden, transB=1))
        return transpose(op.gemm(self._tensor("weight"), seen, self._bias(), transB=1))

    def _bias(self) -> Var | None:
        """[rows, 1]: the tensor's bytes under another shape."""
        if self.layer.bias is None:
            return None
        return self.weights.view(f"{self.name}.bias", self.size, 1)

    def _tensor(self, part: str) -> Var:
        return self.weights[f"{self.name}.{part}"]


def head(model: AdaptiveSoftmax, weights: Weights) -> ProjectedWeights:
    return ProjectedWeights(model.head, weights, "head")


def tails(model: AdaptiveSoftmax, weights: Weights) -> list[ProjectedWeights]:
    return [ProjectedWeights(tail, weights, f"tail{i}") for i, tail in enumerate(model.tails)]
