"""A linear layer with optional input projection: the head or a tail of an adaptive softmax.

logits = weight @ (projection @ hidden) + bias
"""

from dataclasses import dataclass

import numpy as np

from .arrays import Array, Float32, Float64, expect_ndim, expect_shape, to_float32
from .errors import WeightsError

_MAX_ROWS_PER_CHUNK = 65_536  # bounds the reference's float64 copy of the weights


@dataclass(frozen=True)
class ProjectedLayer:
    """Weight, bias and projection of one layer.

    Attributes:
        weight: [rows, width]; with a width of 0 every logit equals its bias
        bias: [rows], or None for no bias
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
    name: str,
    weight: Array,
    bias: Array | None = None,
    projection: Array | None = None,
    *,
    projection_bias: Array | None = None,
) -> ProjectedLayer:
    """Build and check a layer; raise WeightsError for shapes or values that do not fit.

    A bias of the projection is added to the layer's own bias, which gives the same logits:

        weight @ (projection @ hidden + b) + bias = weight @ projection @ hidden + weight @ b + bias
    """
    expect_ndim(f"{name} weight", weight, "rows", "width")
    rows, width = weight.shape
    if rows < 1:
        raise WeightsError(f"{name} weight: expected at least one row, got none")
    if bias is not None:
        expect_shape(f"{name} bias", bias, (rows,))
    if projection is not None:
        expect_ndim(f"{name} projection", projection, "width", "hidden_size")
        expect_shape(f"{name} projection", projection, (width, projection.shape[1]))
    if projection_bias is not None:
        expect_shape(f"{name} projection bias", projection_bias, (width,))
        bias = joined_bias(name, weight, bias, projection_bias)
    return ProjectedLayer(
        to_float32(f"{name} weight", weight),
        None if bias is None else to_float32(f"{name} bias", bias),
        None if projection is None else to_float32(f"{name} projection", projection),
    )


def joined_bias(name: str, weight: Array, bias: Array | None, projection_bias: Array) -> Float64:
    """Return weight @ projection_bias + bias in float64.

    Raises:
        WeightsError: an array that is not of finite numbers.
    """
    added = np.zeros(len(weight)) if bias is None else bias
    parts = {"weight": weight, "bias": added, "projection bias": projection_bias}
    for part, array in parts.items():
        to_float32(f"{name} {part}", array)
    joined = added.astype(np.float64)
    for start in range(0, len(weight), _MAX_ROWS_PER_CHUNK):
        chunk = slice(start, start + _MAX_ROWS_PER_CHUNK)
        joined[chunk] += weight[chunk].astype(np.float64) @ projection_bias.astype(np.float64)
    return joined


def log_softmax(layer: ProjectedLayer, states: Float64) -> Float64:
    """Return the layer's log-softmax in float64: [batch, hidden_size] -> [batch, rows]."""
    if layer.projection is not None:
        states = states @ layer.projection.astype(np.float64).T
    logits = np.empty((len(states), layer.num_rows))
    for start in range(0, layer.num_rows, _MAX_ROWS_PER_CHUNK):
        chunk = slice(start, start + _MAX_ROWS_PER_CHUNK)
        logits[:, chunk] = states @ layer.weight[chunk].astype(np.float64).T
    if layer.bias is not None:
        logits += layer.bias
    logits -= logits.max(axis=1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return logits


def largest_logit(layer: ProjectedLayer, hidden: Array) -> float:
    """Return an upper bound of |logit| over all rows and hidden states."""
    states = np.asarray(hidden, dtype=np.float32)
    if layer.projection is not None:
        states = states @ layer.projection.T
    bias = 0.0 if layer.bias is None else float(np.abs(layer.bias).max())
    return float(np.abs(layer.weight @ states.T).max(initial=0.0)) + bias
