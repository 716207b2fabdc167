"""Reads the header of NumPy's `.npy` format, without trusting it.

`np.load` would allocate any shape that a header claims, and raises errors of many types.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from numpy.lib import format as npy

from .decoder_errors import reason_of
from .errors import UserError

MAX_NPY_HEADER_BYTES = 10_012  # NumPy itself reads no longer text after magic string and length

_MAX_AXES = 32
_MAX_SIZE = 2**63 - 1
_READERS = {
    (1, 0): npy.read_array_header_1_0,
    (2, 0): npy.read_array_header_2_0,
    (3, 0): npy.read_array_header_2_0,
}


class NpyError(UserError):
    """The bytes do not begin with the header of an array."""


@dataclass(frozen=True)
class NpyHeader:
    """Header of an array.

    Attributes:
        by_column: True if the numbers are in Fortran order
        offset: bytes before the numbers
    """

    shape: tuple[int, ...]
    by_column: bool
    dtype: np.dtype[Any]
    offset: int

    @property
    def content_bytes(self) -> int:
        """Bytes of the numbers."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_npy_header(content: bytes | memoryview) -> NpyHeader:
    """Read the header of a file, of which at most MAX_NPY_HEADER_BYTES need be given.

    Raises:
        NpyError: another format, or a header that is damaged.
    """
    width = 2 if content[6:7] == b"\x01" else 4
    offset = 8 + width + int.from_bytes(content[8 : 8 + width], "little")
    if offset > MAX_NPY_HEADER_BYTES:
        raise NpyError(
            f"expected NPY with a header of at most {MAX_NPY_HEADER_BYTES} bytes, got {offset}"
        )
    return _parse(bytes(content[:offset]))


@lru_cache(maxsize=64)  # clients repeat the same header, and NumPy takes 0.1 ms to parse it
def _parse(header: bytes) -> NpyHeader:
    stream = BytesIO(header)
    try:
        shape, by_column, dtype = _READERS[npy.read_magic(stream)](stream)
    except Exception as error:  # MemoryError too: Python's parser raises it for deep nesting
        raise NpyError(f"expected NPY, got: {reason_of(error)}") from None
    if len(shape) > _MAX_AXES or not all(type(n) is int and 0 <= n <= _MAX_SIZE for n in shape):
        raise NpyError(f"expected NPY of up to {_MAX_AXES} sizes from 0, got {str(shape)[:60]}")
    if math.prod(size or 1 for size in shape) * max(1, dtype.itemsize) > _MAX_SIZE:
        raise NpyError(f"expected NPY of at most {_MAX_SIZE} bytes, got {str(shape)[:60]}")
    return NpyHeader(shape, by_column, dtype, len(header))
