"""NDJSON rows of a stream: splits a body into lines as its bytes arrive, and parses them."""

from collections.abc import Iterator, Sequence

from hsoftmax.bundle import UTF8_MARK, other_encoding
from hsoftmax.scoring.errors import BrokenInput
from hsoftmax.scoring.formats.columns import Columns
from hsoftmax.scoring.formats.line_reader import MAX_LINE_BYTES, RawLine
from hsoftmax.scoring.formats.ndjson import RowDecoder
from hsoftmax.scoring.requirements import RowRequirements
from hsoftmax.scoring.row_batch import RowBatch
from hsoftmax.scoring.task import TargetShape, ValueKind

_CHUNK_BYTES = 2**17  # of lines that are parsed in one call, which takes a millisecond or two


class LineStreamReader:
    """Reads chunks of lines. A line that is too long becomes an error of its own row only."""

    id_kind: ValueKind = "string"

    def __init__(
        self,
        max_line_bytes: int = MAX_LINE_BYTES,
        *,
        text_first: bool = False,
        named: bool = False,
    ) -> None:
        """`text_first` says that most rows are texts, `named` that they may be inputs by name."""
        self.rows = 1
        self._splitter = LineSplitter(max_line_bytes)
        self._decoder = RowDecoder(Columns(), text_first, named)
        self._begun = False

    def feed(self, data: bytes) -> Iterator[list[RawLine]]:
        lines = self._splitter.feed(data)
        if lines and not self._begun:
            self._begun = True
            lines[0] = _first_line(lines[0])
        return self._chunks(lines)

    def end(self) -> Iterator[list[RawLine]]:
        lines = self._splitter.end()
        if lines and not self._begun:
            lines[0] = _first_line(lines[0])
        return self._chunks(lines)

    def target_shape(self, chunk: Sequence[RawLine]) -> TargetShape | None:
        return self._decoder.target_shape(chunk)

    def parse(
        self, chunk: Sequence[RawLine], first_line: int, requirements: RowRequirements
    ) -> RowBatch:
        return self._decoder.decode(chunk, first_line, requirements)

    def _chunks(self, lines: Sequence[RawLine]) -> Iterator[list[RawLine]]:
        """Yields chunks of at most `rows` lines, each cut soon after the byte limit."""
        chunk: list[RawLine] = []
        size = 0
        for line in lines:
            chunk.append(line)
            size += len(line or b"")
            if len(chunk) >= self.rows or size >= _CHUNK_BYTES:
                yield chunk
                chunk, size = [], 0
        if chunk:
            yield chunk


def _first_line(line: RawLine) -> RawLine:
    """Returns the first line without its byte order mark. Raises BrokenInput if it is not UTF-8."""
    if line and (other := other_encoding(line)):
        raise BrokenInput(f"body: expected UTF-8 text, got {other}")
    return line and line.removeprefix(UTF8_MARK)


class LineSplitter:
    """Splits bytes that come in any pieces into lines.

    It holds one unfinished line, up to the maximum length.
    """

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_line_bytes = max_line_bytes
        self._rest = bytearray()
        self._too_long = False

    def feed(self, data: bytes) -> list[RawLine]:
        """Returns the lines that end within these bytes."""
        *ended, rest = data.split(b"\n")
        lines = [self._end_line(part) for part in ended]
        self._add(rest)
        return lines

    def end(self) -> list[RawLine]:
        """Returns the last line, if no newline ends it."""
        return [self._end_line(b"")] if self._rest or self._too_long else []

    def _end_line(self, part: bytes) -> RawLine:
        self._add(part)
        line = None if self._too_long else bytes(self._rest).rstrip(b"\r")
        self._rest.clear()
        self._too_long = False
        return line

    def _add(self, part: bytes) -> None:
        if self._too_long or len(self._rest) + len(part) > self._max_line_bytes:
            self._too_long = True
            self._rest.clear()
        else:
            self._rest += part
