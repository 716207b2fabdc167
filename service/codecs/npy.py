"""NumPy's .npy format: a matrix in, an array out, and never an object."""

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
    """The array, as a view of the body. Raises Unreadable."""
    start = _header_length(body)
    try:
        shape, by_column, dtype = _header(body[:start])
    except (ValueError, KeyError):
        raise Unreadable(_NOT_NPY) from None
    # `np.load` would make room for whatever shape the header claims.
    rest = memoryview(body)[start:]
    if dtype.kind not in "fiu" or len(rest) != math.prod(shape) * dtype.itemsize:
        raise Unreadable(_NOT_NPY)
    return np.frombuffer(rest, dtype).reshape(shape, order="F" if by_column else "C")


def _header_length(body: bytes) -> int:
    """Bytes before the numbers, as they say themselves: a magic string, a length, a dictionary."""
    width = 2 if body[6:7] == b"\x01" else 4
    return 8 + width + int.from_bytes(body[8 : 8 + width], "little")


@lru_cache(maxsize=64)  # a client sends the same over and over, and NumPy takes 0.1 ms to read it
def _header(header: bytes) -> tuple[tuple[int, ...], bool, Any]:
    stream = BytesIO(header)
    shape, by_column, dtype = _READERS[npy.read_magic(stream)](stream)
    return shape, by_column, dtype


@lru_cache(maxsize=64)
def npy_header(shape: tuple[int, ...]) -> bytes:
    """The bytes that come before a float32 array of this shape, row after row."""
    stream = BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(stream, header)
    return stream.getvalue()


def npy_bytes(values: Array) -> bytes:
    """What comes after the header."""
    return values.astype(_FLOAT32, copy=False).tobytes()
