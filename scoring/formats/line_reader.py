"""Reads rows that are lines, from any number of files.

A line that is too long to hold in memory becomes an error of its own row only.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from hsoftmax.bundle import UTF8_MARK, other_encoding
from hsoftmax.scoring.errors import CallError

from .files import content_size, open_lines
from .reader import Position, RawBatch

MAX_LINE_BYTES = 16 * 2**20
_MAX_BATCH_BYTES = 32 * 2**20  # several threads hold a batch each
_PROBED_BYTES = 64

_ID_BATCH_ROWS = 4096

RawLine = bytes | None  # None stands for a line that is too long


class LineReader:
    """Reads batches of lines. It holds one file open, until `close`.

    Args:
        headers: number of lines at the head of each file that are no rows

    Raises:
        CallError: a file that is not UTF-8, as its first bytes say.
    """

    def __init__(self, files: Sequence[Path], *, headers: int) -> None:
        for path in files:
            _expect_utf8(path)
        self._files = files
        self._headers = headers
        self._sizes = [content_size(path) for path in files]
        self._open: tuple[int, BinaryIO] | None = None

    def begin(self, file: int = 0) -> Position:
        """Returns the position of a file's first row."""
        stream = self._stream(file)
        stream.seek(0)
        for _ in range(self._headers):
            read_line(stream)
        return Position(file, stream.tell(), self._headers + 1)

    def read(self, position: Position, count: int) -> RawBatch | None:
        """Reads at most `count` lines, and stops soon after the byte limit of a batch."""
        while True:
            lines, size = self._lines(position, count)
            if lines:
                end = Position(position.file, position.offset + size, position.line + len(lines))
                return RawBatch(position, end, len(lines), lines)
            if position.file + 1 == len(self._files):
                return None
            position = self.begin(position.file + 1)

    def skip(self, position: Position, count: int) -> tuple[Position, int]:
        """Returns (position after at most `count` lines, number of those lines)."""
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
        return min(1.0, before / max(1, sum(self._sizes)))

    def close(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def _count(self, position: Position, max_lines: int) -> tuple[int, int]:
        """Returns (lines, bytes) from a position to the end of its file, or to `max_lines`."""
        stream = self._seek(position)
        lines = size = 0
        while lines < max_lines and (line_size := read_line(stream)[1]):
            lines, size = lines + 1, size + line_size
        return lines, size

    def _lines(self, position: Position, count: int) -> tuple[list[RawLine], int]:
        """Returns (lines, their bytes), all of the position's file."""
        stream = self._seek(position)
        lines: list[RawLine] = []
        size = 0
        while len(lines) < count and size < _MAX_BATCH_BYTES:
            line, line_size = read_line(stream)
            if not line_size:
                break
            if line and not position.offset and not lines:
                line = line.removeprefix(UTF8_MARK)
            lines.append(line)
            size += line_size
        return lines, size

    def _seek(self, position: Position) -> BinaryIO:
        stream = self._stream(position.file)
        if stream.tell() != position.offset:
            stream.seek(position.offset)
        return stream

    def _stream(self, file: int) -> BinaryIO:
        if self._open is None or self._open[0] != file:
            self.close()
            self._open = (file, open_lines(self._files[file]))
        return self._open[1]


def _expect_utf8(path: Path) -> None:
    """Raises CallError if the file surely has another encoding, which would make each row wrong."""
    with open_lines(path) as file:
        start = file.read(_PROBED_BYTES)
    if other := other_encoding(start):
        raise CallError(f"{path}: expected UTF-8 text, got {other}")


class LineBasedReader:
    """Base of the row readers whose rows are lines: delegates reading to a `LineReader`."""

    lines: LineReader
    states_rows = False

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


def all_lines(files: Sequence[Path], *, headers: int) -> Iterator[list[RawLine]]:
    """Yields every line that is a row, in batches."""
    with closing(LineReader(files, headers=headers)) as lines:
        position = lines.begin()
        while (raw_batch := lines.read(position, _ID_BATCH_ROWS)) is not None:
            yield raw_batch.content
            position = raw_batch.end


def read_line(stream: BinaryIO) -> tuple[RawLine, int]:
    """Returns (the next line without its end, the bytes it takes); 0 at the end of the file."""
    line = stream.readline(MAX_LINE_BYTES)
    if len(line) < MAX_LINE_BYTES or line.endswith(b"\n"):
        return line.rstrip(b"\r\n"), len(line)
    size = len(line)
    while True:
        rest = stream.readline(MAX_LINE_BYTES)
        size += len(rest)
        if len(rest) < MAX_LINE_BYTES or rest.endswith(b"\n"):
            return None, size
