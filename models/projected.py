"""A linear layer that may look at a projection of the hidden state: the parts of adaptive softmax.

logits = weight @ (projection @ hidden) + bias
"""

from dataclasses import dataclass

import numpy as np

from .arrays import Array, Float32, Float64, expect_ndim, expect_shape, floats
from .errors import WeightsError

_ROWS_AT_ONCE = 65_536  # bounds the float64 copy of the weights that the reference makes


@dataclass(frozen=True)
class Projected:
    """Rows of logits.

    Attributes:
        weight: [rows, width]; a width of 0 makes every logit its bias
        bias: [rows], or None for none
        projection: [width, hidden_size], or None where the width is the hidden size
    """

    weight: Float32
    bias: Float32 | None = None
    projection: Float32 | None = None

    @property
    def num_rows(self) -> int:
        return len(self.weight)

    @property
    def width(self) -> int:
        return int(self.weight.shape[1])

    @property
    def hidden_size(self) -> int:
        return self.width if self.projection is None else int(self.projection.shape[1])


def build_projected(
    name: str, weight: Array, bias: Array | None = None, projection: Array | None = None
) -> Projected:
    """A checked layer. Raises WeightsError for shapes or values that do not fit."""
    expect_ndim(f"{name} weight", weight, "rows", "width")
    rows, width = weight.shape
    if rows < 1:
        raise WeightsError(f"{name} weight: expected at least one row, got none")
    if bias is not None:
        expect_shape(f"{name} bias", bias, (rows,))
    if projection is not None:
        expect_ndim(f"{name} projection", projection, "width", "hidden_size")
        expect_shape(f"{name} projection", projection, (width, projection.shape[1]))
    return Projected(
        floats(f"{name} weight", weight),
        None if bias is None else floats(f"{name} bias", bias),
        None if projection is None else floats(f"{name} projection", projection),
    )


def log_softmax(layer: Projected, states: Float64) -> Float64:
    """[batch, hidden_size] -> [batch, rows], in float64."""
    if layer.projection is not None:
        states = states @ layer.projection.astype(np.float64).T
    logits = np.empty((len(states), layer.num_rows))
    for start in range(0, layer.num_rows, _ROWS_AT_ONCE):
        some = slice(start, start + _ROWS_AT_ONCE)
        logits[:, some] = states @ layer.weight[some].astype(np.float64).T
    if layer.bias is not None:
        logits += layer.bias
    logits -= logits.max(axis=1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return logits


def largest_logit(layer: Projected, hidden: Array) -> float:
    """A bound on |logit| over all rows and hidden states."""
    states = np.asarray(hidden, dtype=np.float32)
    if layer.projection is not None:
        states = states @ layer.projection.T
    bias = 0.0 if layer.bias is None else float(np.abs(layer.bias).max())
    return float(np.abs(layer.weight @ states.T).max(initial=0.0)) + bias
