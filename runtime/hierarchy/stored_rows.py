"""Multiplies rows of a stored weight, and normalises logits."""

from collections.abc import Mapping

import numpy as np

from hsoftmax.models.arrays import Array, Float32, Float64
from hsoftmax.models.storage.precision import dequantise, scale_name

from .nodes import ExpectRunning

_MAX_ROWS_PER_CHUNK = 65_536  # bounds the float32 copy of weights in fewer bits


def logits(
    tensors: Mapping[str, Array],
    name: str,
    rows: slice,
    hidden: Float32,
    expect_running: ExpectRunning,
    *,
    block: int | None = None,
) -> Float64:
    """Return hidden @ weight[rows].T, [batch, rows]; `block` holds exactly them if it is given.

    The weight is [rows, width] in any precision, or transposed blocks [blocks, width, rows].
    """
    weight, scale = tensors[name], tensors.get(scale_name(name))
    stored = weight[rows] if weight.ndim == 2 else weight[block].T
    scales = None if scale is None else scale[rows]
    result = np.empty((len(hidden), len(stored)))
    for start in range(0, len(stored), _MAX_ROWS_PER_CHUNK):
        expect_running()
        chunk = slice(start, start + _MAX_ROWS_PER_CHUNK)
        part = stored[chunk]
        if part.dtype != np.float32:
            part = dequantise(part, None if scales is None else scales[chunk])
        result[:, chunk] = hidden @ part.T
    return result


def log_softmax(logits: Float64) -> Float64:
    """Return the log-softmax of each row."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    normalised: Float64 = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return normalised
