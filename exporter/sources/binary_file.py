"""Bounded reading of a binary file: whatever its header says, nothing is made that it cannot fill.

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
from hsoftmax.models.arrays import Array

_NUL = b"\0"


class BinaryFile:
    """A place in a mapped file that moves on with every read."""

    def __init__(self, name: str, content: mmap.mmap, kind: str) -> None:
        self.name = name
        self.kind = kind
        self._content = content
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._content) - self._at

    def array(self, what: str, dtype: DTypeLike, count: int) -> Array:
        """The next `count` numbers, copied."""
        kind = np.dtype(dtype).newbyteorder("<")
        start = self.skip(what, count, kind.itemsize)
        return np.frombuffer(self._content, kind, count, start).astype(np.dtype(dtype))

    def number(self, what: str, dtype: DTypeLike) -> int:
        return int(self.array(what, dtype, 1)[0])

    def record(self, what: str, layout: struct.Struct) -> tuple[int, ...]:
        """Numbers of several types, one after the other."""
        return layout.unpack_from(self._content, self.skip(what, 1, layout.size))

    def flag(self, what: str) -> bool:
        value = self.number(what, np.uint8)
        if value > 1:
            raise self.damaged(f"{what}: expected 0 or 1, got {value}")
        return bool(value)

    def size(self, what: str, dtype: DTypeLike, *, least: int = 0) -> int:
        """A number that counts something."""
        value = self.number(what, dtype)
        if value < least:
            raise self.damaged(f"{what}: expected at least {least}, got {value}")
        return value

    def text(self, what: str) -> bytes:
        """The bytes up to the next NUL."""
        end = self._content.find(_NUL, self._at)
        if end < 0:
            raise self.damaged(f"{what}: expected to end in NUL, got the end of the file")
        start, self._at = self._at, end + 1
        return self._content[start:end]

    def skip(self, what: str, count: int, itemsize: int) -> int:
        """Leave out `count` items; returns where they began."""
        if count * itemsize > self.left:
            raise self.damaged(f"{what}: expected {count * itemsize} bytes, got {self.left}")
        start = self._at
        self._at += count * itemsize
        return start

    def damaged(self, why: str) -> SourceError:
        return SourceError(f"{self.name}: expected a whole {self.kind}: {why}")


@contextmanager
def open_binary(path: Path, kind: str) -> Iterator[BinaryFile]:
    """The file from its first byte. Raises SourceError where there is none, or it is empty."""
    try:
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        why = "an empty file" if isinstance(error, ValueError) else error.strerror
        raise SourceError(f"{path.name}: expected a {kind}, got {why}") from None
    with content:
        yield BinaryFile(path.name, content, kind)
