"""NumPy's .npy format: reads a matrix, writes an array, and never reads a pickled object."""

from functools import lru_cache
from io import BytesIO

import numpy as np
from numpy.lib import format as npy

from hsoftmax.models.arrays import Array
from hsoftmax.models.npy_header import NpyError, read_npy_header
from hsoftmax.service.errors import Unreadable

_NOT_NPY = "body: expected a .npy array of numbers, which this is not"
_FLOAT32 = np.dtype("<f4")


def read_npy(body: bytes) -> Array:
    """The array as a view of the body. Raises Unreadable."""
    try:
        header = read_npy_header(body)
    except NpyError:
        raise Unreadable(_NOT_NPY) from None
    content = memoryview(body)[header.offset :]
    if header.dtype.kind not in "fiu" or len(content) != header.content_bytes:
        raise Unreadable(_NOT_NPY)
    if not header.content_bytes:
        return np.empty(header.shape, header.dtype)
    numbers = np.frombuffer(content, header.dtype)
    return numbers.reshape(header.shape, order="F" if header.by_column else "C")


@lru_cache(maxsize=64)
def npy_header(shape: tuple[int, ...]) -> bytes:
    """The bytes in front of a float32 array of this shape in row order."""
    stream = BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(stream, header)
    return stream.getvalue()


def npy_bytes(values: Array) -> bytes:
    """The bytes of the numbers, behind the header."""
    return values.astype(_FLOAT32, copy=False).tobytes()
