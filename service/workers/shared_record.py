"""One value in memory that all workers share; no disk is needed to store it.

The supervisor creates records and passes them to the workers that it starts, so a value outlives
the worker that wrote it. A full folder for temporary files stops neither metrics nor changes.
"""

import fcntl
import os
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from .descriptor import Descriptor

_HEADER = struct.Struct("<QQ")  # offset and length of the value
_OFFSETS = (2**12, 2**30)  # the value is written to one, then to the other; the file is sparse


class SharedRecord(Descriptor):
    """The value is bytes, at first b"". Every process has the file open until it ends."""

    @classmethod
    def create(cls) -> Self:
        if hasattr(os, "memfd_create"):
            return cls(os.memfd_create("hsoftmax"))
        with tempfile.TemporaryFile() as file:  # systems other than Linux
            return cls(os.dup(file.fileno()))

    def read(self) -> bytes:
        """Return the value that was written last."""
        offset, length = self._header()
        return os.pread(self.descriptor, length, offset)

    def write(self, value: bytes) -> None:
        """Replace the value as a whole, even if this process is killed meanwhile."""
        before, _ = self._header()
        offset = _OFFSETS[before == _OFFSETS[0]]
        _write_all(self.descriptor, value, offset)
        os.pwrite(self.descriptor, _HEADER.pack(offset, len(value)), 0)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out of their `locked` until the block ends."""
        fcntl.lockf(self.descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self.descriptor, fcntl.LOCK_UN)

    def _header(self) -> tuple[int, int]:
        header = os.pread(self.descriptor, _HEADER.size, 0)
        return _HEADER.unpack(header) if header else (_OFFSETS[1], 0)


def _write_all(descriptor: int, value: bytes, offset: int) -> None:
    view = memoryview(value)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
