"""NumPy's .npy format: reads a matrix, writes an array, and never reads a pickled object."""

import math
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from numpy.lib import format as npy

from hsoftmax.models.arrays import Array
from hsoftmax.service.errors import Unreadable

_NOT_NPY = "body: expected a .npy array of numbers, which this is not"
_FLOAT32 = np.dtype("<f4")
_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_npy(body: bytes) -> Array:
    """The array as a view of the body. Raises Unreadable."""
    start = _header_length(body)
    try:
        shape, by_column, dtype = _header(body[:start])
    except (ValueError, KeyError):
        raise Unreadable(_NOT_NPY) from None
    # `np.load` would allocate any shape that the header claims.
    content = memoryview(body)[start:]
    if dtype.kind not in "fiu" or len(content) != math.prod(shape) * dtype.itemsize:
        raise Unreadable(_NOT_NPY)
    return np.frombuffer(content, dtype).reshape(shape, order="F" if by_column else "C")


def _header_length(body: bytes) -> int:
    """Bytes before the numbers: a magic string, a length and a dictionary."""
    width = 2 if body[6:7] == b"\x01" else 4
    return 8 + width + int.from_bytes(body[8 : 8 + width], "little")


@lru_cache(maxsize=64)  # clients repeat the same header, and NumPy takes 0.1 ms to parse it
def _header(header: bytes) -> tuple[tuple[int, ...], bool, Any]:
    stream = BytesIO(header)
    shape, by_column, dtype = _READERS[npy.read_magic(stream)](stream)
    return shape, by_column, dtype


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
