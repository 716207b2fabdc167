"""Bounded queue of bytes: a first part in memory, the rest in a temporary file.

The response sender keeps records in it for a client that sends its whole body before it reads; see
docs/decisions/0021-stream-records-are-buffered-on-disk.md.
"""

import asyncio
import os
import tempfile
from collections import deque
from typing import IO

_MAX_MEMORY_BYTES = 2**20
_MAX_READ_BYTES = 2**18


class Spool:
    """Queue of bytes for one producer and one consumer. The file is a ring buffer.

    Attributes:
        disk_failed: True once the file could not be written, e.g. because the disk is full
    """

    def __init__(self, max_disk_bytes: int) -> None:
        self._capacity = max_disk_bytes
        self._max_disk_bytes = max_disk_bytes  # lowered when the disk is full
        self._memory: deque[bytes] = deque()
        self._memory_bytes = 0
        self._file: IO[bytes] | None = None
        self._last = b""
        self.disk_failed = False
        # Total bytes read from and written to the file. Modulo the capacity they are offsets in it.
        self._read_position = self._write_position = 0

    def __len__(self) -> int:
        """Number of bytes in the queue."""
        on_disk = self._write_position - self._read_position
        return self._memory_bytes + on_disk + len(self._last)

    async def put(self, data: bytes) -> bool:
        """Add the bytes. Return False if there is no room; an empty spool has room for any size."""
        on_disk = self._write_position - self._read_position
        if not on_disk and (
            not self._memory_bytes or self._memory_bytes + len(data) <= _MAX_MEMORY_BYTES
        ):
            self._memory.append(data)
            self._memory_bytes += len(data)
            return True
        if on_disk + len(data) > self._max_disk_bytes:
            return False
        try:
            await asyncio.to_thread(self._write, data)
        except OSError:  # the disk is full or missing: use what is written already
            self._max_disk_bytes = self._write_position - self._read_position
            self.disk_failed = True
            return False
        self._write_position += len(data)
        return True

    def put_last(self, data: bytes) -> None:
        """Add the end of the response, for which there always is room. Nothing may follow."""
        self._last = data

    async def take(self) -> bytes:
        """Remove and return the next bytes, or b"" if the spool is empty."""
        if self._memory:
            data = self._memory.popleft()
            self._memory_bytes -= len(data)
            return data
        if self._read_position == self._write_position:
            last, self._last = self._last, b""
            return last
        data = await asyncio.to_thread(self._read)
        self._read_position += len(data)
        return data

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _write(self, data: bytes) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  see `close`
        offset = self._write_position % self._capacity
        first = self._capacity - offset
        _write_at(self._file.fileno(), data[:first], offset)
        _write_at(self._file.fileno(), data[first:], 0)

    def _read(self) -> bytes:
        assert self._file is not None
        offset = self._read_position % self._capacity
        size = min(
            _MAX_READ_BYTES, self._write_position - self._read_position, self._capacity - offset
        )
        data = os.pread(self._file.fileno(), size, offset)
        if len(data) < size:
            raise OSError("the file of waiting answers has become shorter")
        return data


def _write_at(file: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written
