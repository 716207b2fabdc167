"""Rows that are lines, of any number of files; a line too long to hold costs only itself."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from .reader import Position, RawBatch

MAX_LINE_BYTES = 16 * 2**20
_LARGEST_BLOCK = 32 * 2**20  # bytes: what several blocks at once may cost in memory

_AT_ONCE = 4096

Line = bytes | None  # None is a line longer than the longest


class LineReader:
    """Blocks of lines; holds one file open, which `close` closes.

    Args:
        headers: how many lines at the head of each file are no rows
    """

    def __init__(self, files: Sequence[Path], *, headers: int) -> None:
        self._files = files
        self._headers = headers
        self._sizes = [path.stat().st_size for path in files]
        self._open: tuple[int, BinaryIO] | None = None

    def begin(self, file: int = 0) -> Position:
        """Where the rows of a file begin."""
        stream = self._stream(file)
        stream.seek(0)
        for _ in range(self._headers):
            read_line(stream)
        return Position(file, stream.tell(), self._headers + 1)

    def read(self, position: Position, count: int) -> RawBatch | None:
        """At most `count` lines, and not many more bytes than a block may have."""
        while True:
            lines, size = self._lines(position, count)
            if lines:
                end = Position(position.file, position.offset + size, position.line + len(lines))
                return RawBatch(position, end, len(lines), lines)
            if position.file + 1 == len(self._files):
                return None
            position = self.begin(position.file + 1)

    def skip(self, position: Position, count: int) -> tuple[Position, int]:
        """The position after at most `count` lines, and how many they were."""
        left = count
        while True:
            lines, size = self._count(position, left)
            left -= lines
            position = Position(position.file, position.offset + size, position.line + lines)
            if not left or position.file + 1 == len(self._files):
                return position, count - left
            position = self.begin(position.file + 1)

    def fraction(self, position: Position) -> float:
        before = sum(self._sizes[: position.file]) + position.offset
        return before / max(1, sum(self._sizes))

    def close(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def _count(self, position: Position, most: int) -> tuple[int, int]:
        """(lines, bytes) from here on in this file, of at most so many lines."""
        stream = self._at(position)
        lines = size = 0
        while lines < most and (taken := read_line(stream)[1]):
            lines, size = lines + 1, size + taken
        return lines, size

    def _lines(self, position: Position, count: int) -> tuple[list[Line], int]:
        stream = self._at(position)
        lines: list[Line] = []
        size = 0
        while len(lines) < count and size < _LARGEST_BLOCK:
            line, taken = read_line(stream)
            if not taken:
                break
            lines.append(line)
            size += taken
        return lines, size

    def _at(self, position: Position) -> BinaryIO:
        stream = self._stream(position.file)
        if stream.tell() != position.offset:
            stream.seek(position.offset)
        return stream

    def _stream(self, file: int) -> BinaryIO:
        if self._open is None or self._open[0] != file:
            self.close()
            self._open = (file, self._files[file].open("rb", buffering=2**20))
        return self._open[1]


class LineBasedReader:
    """What every source whose rows are lines leaves to its reader."""

    lines: LineReader

    def begin(self) -> Position:
        return self.lines.begin()

    def read(self, position: Position, count: int) -> RawBatch | None:
        return self.lines.read(position, count)

    def skip(self, position: Position, count: int) -> tuple[Position, int]:
        return self.lines.skip(position, count)

    def fraction(self, position: Position) -> float:
        return self.lines.fraction(position)

    def close(self) -> None:
        self.lines.close()


def all_lines(files: Sequence[Path], *, headers: int) -> Iterator[list[Line]]:
    """Every line that is a row, some at a time."""
    with closing(LineReader(files, headers=headers)) as lines:
        position = lines.begin()
        while (raw_batch := lines.read(position, _AT_ONCE)) is not None:
            yield raw_batch.content
            position = raw_batch.end


def read_line(stream: BinaryIO) -> tuple[Line, int]:
    """The next line without its end, and the bytes it took: none at the end of the file."""
    line = stream.readline(MAX_LINE_BYTES)
    if len(line) < MAX_LINE_BYTES or line.endswith(b"\n"):
        return line.rstrip(b"\r\n"), len(line)
    taken = len(line)
    while True:
        rest = stream.readline(MAX_LINE_BYTES)
        taken += len(rest)
        if len(rest) < MAX_LINE_BYTES or rest.endswith(b"\n"):
            return None, taken
