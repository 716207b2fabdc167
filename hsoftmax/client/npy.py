"""Writes and reads arrays as `.npy`, the format of matrices on the wire. Nothing is unpickled."""

import io

import numpy as np

from hsoftmax.models.arrays import Array, Float32


def to_npy(array: Float32) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def from_npy(content: bytes) -> Array:
    array: Array = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    return array
