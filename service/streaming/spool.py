"""Bytes that wait to be taken: some in memory, more in a file, and then no more.

A client that sends all of its body before it reads needs somewhere for its answers to be; see
docs/decisions/0021-answers-wait-on-disk.md.
"""

import asyncio
import os
import tempfile
from collections import deque
from typing import IO

_MEMORY = 2**20
_PIECE = 2**18


class Spool:
    """First in, first out, for one who puts and one who takes; closed by `close`."""

    def __init__(self, most_on_disk: int) -> None:
        self._ring = most_on_disk
        self._room = most_on_disk  # less than that where the disk has no more
        self._memory: deque[bytes] = deque()
        self._held = 0  # bytes in memory
        self._file: IO[bytes] | None = None
        self._begin = self._end = 0  # of what is in the file, which goes round and round

    def __len__(self) -> int:
        """How many bytes wait."""
        return self._held + self._end - self._begin

    async def put(self, data: bytes) -> bool:
        """Whether there was room; an empty spool takes anything."""
        on_disk = self._end - self._begin
        if not on_disk and (not self._held or self._held + len(data) <= _MEMORY):
            self._memory.append(data)
            self._held += len(data)
            return True
        if on_disk + len(data) > self._room:
            return False
        try:
            await asyncio.to_thread(self._write, data)
        except OSError:  # the disk is full, or there is none: what is there must do
            self._room = self._end - self._begin
            return False
        self._end += len(data)
        return True

    async def take(self) -> bytes:
        """Some of what waits; nothing if nothing does."""
        if self._memory:
            data = self._memory.popleft()
            self._held -= len(data)
            return data
        if self._begin == self._end:
            return b""
        data = await asyncio.to_thread(self._read)
        self._begin += len(data)
        return data

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _write(self, data: bytes) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  see `close`
        at = self._end % self._ring
        first = self._ring - at
        _write_at(self._file.fileno(), data[:first], at)
        _write_at(self._file.fileno(), data[first:], 0)

    def _read(self) -> bytes:
        assert self._file is not None
        at = self._begin % self._ring
        size = min(_PIECE, self._end - self._begin, self._ring - at)
        data = os.pread(self._file.fileno(), size, at)
        if len(data) < size:
            raise OSError("the file of waiting answers has become shorter")
        return data


def _write_at(file: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, at)
        view, at = view[written:], at + written
