"""Reads a binary file with bounds checks: no count in the file can make it allocate more memory.

All numbers are little-endian, without padding between them.
"""

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from hsoftmax.exporter.errors import SourceError
from hsoftmax.exporter.files.input_file import map_input
from hsoftmax.models.arrays import Array

_NUL = b"\0"


class BinaryFile:
    """A memory-mapped file and the current read position.

    Every method takes the name of the field for its error message and raises SourceError if the
    file ends before the field does.
    """

    def __init__(self, path: Path, content: mmap.mmap, format_name: str) -> None:
        self.name = path.name
        self._path = path
        self.format_name = format_name
        self._content = content
        self._num_bytes = len(content)
        self._position = 0

    @property
    def num_bytes(self) -> int:
        """Length of the file."""
        return self._num_bytes

    @property
    def remaining(self) -> int:
        """Number of unread bytes."""
        return self._num_bytes - self._position

    def array(self, field: str, dtype: DTypeLike, count: int) -> Array:
        """Read the next `count` numbers as a copy."""
        element_type = np.dtype(dtype).newbyteorder("<")
        start = self.skip(field, count, element_type.itemsize)
        return np.frombuffer(self._content, element_type, count, start).astype(np.dtype(dtype))

    def mapped(self, field: str, dtype: DTypeLike, count: int) -> Array:
        """Return the next `count` numbers as a map of the file, which stays open with the array."""
        element_type = np.dtype(dtype).newbyteorder("<")
        start = self.skip(field, count, element_type.itemsize)
        if not count:
            return np.empty(0, element_type)
        return np.memmap(self._path, element_type, "r", start, (count,))

    def number(self, field: str, dtype: DTypeLike) -> int:
        """Read one integer."""
        return int(self.array(field, dtype, 1)[0])

    def record(self, field: str, layout: struct.Struct) -> tuple[int, ...]:
        """Read the values of a struct layout."""
        return layout.unpack_from(self._content, self.skip(field, 1, layout.size))

    def flag(self, field: str) -> bool:
        """Read one byte that must be 0 or 1."""
        value = self.number(field, np.uint8)
        if value > 1:
            raise self.damaged(f"{field}: expected 0 or 1, got {value}")
        return bool(value)

    def size(self, field: str, dtype: DTypeLike, *, minimum: int = 0) -> int:
        """Read a count that must be at least `minimum`."""
        value = self.number(field, dtype)
        if value < minimum:
            raise self.damaged(f"{field}: expected at least {minimum}, got {value}")
        return value

    def text(self, field: str) -> bytes:
        """Read the bytes up to the next NUL."""
        end = self._content.find(_NUL, self._position)
        if end < 0:
            raise self.damaged(f"{field}: expected to end in NUL, got the end of the file")
        start, self._position = self._position, end + 1
        return self._content[start:end]

    def skip(self, field: str, count: int, itemsize: int) -> int:
        """Skip `count` items and return the position of the first."""
        if count * itemsize > self.remaining:
            raise self.damaged(f"{field}: expected {count * itemsize} bytes, got {self.remaining}")
        start = self._position
        self._position += count * itemsize
        return start

    def damaged(self, reason: str) -> SourceError:
        """Return an error that says why the file is damaged."""
        return SourceError(f"{self.name}: expected a whole {self.format_name}: {reason}")


@contextmanager
def open_binary(path: Path, format_name: str) -> Iterator[BinaryFile]:
    """Map a file from its first byte; raise SourceError if it is missing or empty."""
    with map_input(path, f"a {format_name}") as content:
        yield BinaryFile(path, content, format_name)
