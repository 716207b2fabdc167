"""NDJSON as a stream: lines out of bytes in any pieces, and records as lines."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from hsoftmax.models.arrays import Array
from hsoftmax.scoring.bundle_info import BundleInfo
from hsoftmax.scoring.formats.columns import Columns
from hsoftmax.scoring.formats.line_reader import MAX_LINE_BYTES, Line
from hsoftmax.scoring.formats.ndjson import Decoder, encode
from hsoftmax.scoring.formats.record_schema import RecordSchema, values
from hsoftmax.scoring.results import RowResults
from hsoftmax.scoring.row_batch import RowBatch, RowRequirements
from hsoftmax.scoring.task import TargetShape, Task, ValueKind, fields

_MARK = b"\xef\xbb\xbf"  # of byte order, which some programs write before UTF-8
_CHUNK_BYTES = 2**17  # of lines that are parsed in one go: a millisecond or two
_NUMBERS = 2**15  # that are written in one go
_OPTION = orjson.OPT_SERIALIZE_NUMPY


class LineStreamReader:
    """Chunks of lines; a line that is too long costs only itself."""

    id_kind: ValueKind = "string"

    def __init__(self, longest: int = MAX_LINE_BYTES) -> None:
        self.rows = 1
        self._splitter = LineSplitter(longest)
        self._decoder = Decoder(Columns())
        self._begun = False

    def feed(self, data: bytes) -> Iterator[list[Line]]:
        lines = self._splitter.feed(data)
        if lines and not self._begun:
            self._begun = True
            lines[0] = lines[0] and lines[0].removeprefix(_MARK)
        return self._cut(lines)

    def end(self) -> Iterator[list[Line]]:
        return self._cut(self._splitter.end())

    def target_shape(self, chunk: Sequence[Line]) -> TargetShape | None:
        return self._decoder.first_form(chunk)

    def parse(
        self, chunk: Sequence[Line], first_line: int, requirements: RowRequirements
    ) -> RowBatch:
        return self._decoder.rows(chunk, first_line, requirements)

    def _cut(self, lines: Sequence[Line]) -> Iterator[list[Line]]:
        """Chunks of not many more bytes than a chunk may have."""
        chunk: list[Line] = []
        size = 0
        for line in lines:
            chunk.append(line)
            size += len(line or b"")
            if len(chunk) >= self.rows or size >= _CHUNK_BYTES:
                yield chunk
                chunk, size = [], 0
        if chunk:
            yield chunk


class LineStreamWriter:
    """A line a record; a very long one in pieces."""

    columnar = False

    def __init__(self, task: Task, bundle_info: BundleInfo) -> None:
        self._task = task
        self._facts = bundle_info

    def encode_rows(self, results: RowResults, target_shape: TargetShape) -> Iterator[bytes]:
        if len(results) == 1 and len(results.scored) and _width(results) > _NUMBERS:
            return _long_line(results)
        return iter(
            (
                encode(
                    results,
                    RecordSchema(fields(self._task, target_shape, self._facts), "string", 0),
                ),
            )
        )

    def opening(self) -> bytes:
        return b""

    def sequences(self, reports: list[dict[str, Any]]) -> bytes:
        return b"".join(_line({"sequence_summary": report}) for report in reports)

    def summary(self, said: Mapping[str, Any]) -> bytes:
        return _line({"summary": said})

    def failure(self, said: Mapping[str, Any]) -> bytes:
        return _line(said)


class LineSplitter:
    """Lines out of bytes that come in any pieces; holds one unfinished line, never a longer one."""

    def __init__(self, longest: int = MAX_LINE_BYTES) -> None:
        self._longest = longest
        self._rest = bytearray()
        self._too_long = False

    def feed(self, data: bytes) -> list[Line]:
        """The lines that end within these bytes."""
        *ended, rest = data.split(b"\n")
        lines = [self._end(part) for part in ended]
        self._add(rest)
        return lines

    def end(self) -> list[Line]:
        """The last line, where no newline ends it."""
        return [self._end(b"")] if self._rest or self._too_long else []

    def _end(self, part: bytes) -> Line:
        self._add(part)
        line = None if self._too_long else bytes(self._rest).rstrip(b"\r")
        self._rest.clear()
        self._too_long = False
        return line

    def _add(self, part: bytes) -> None:
        if self._too_long or len(self._rest) + len(part) > self._longest:
            self._too_long = True
            self._rest.clear()
        else:
            self._rest += part


def _width(results: RowResults) -> int:
    columns = results.columns.values()
    return max((column.size for column in columns if isinstance(column, np.ndarray)), default=0)


def _long_line(results: RowResults) -> Iterator[bytes]:
    """The line of a chunk's only row, as `encode` writes it."""
    yield orjson.dumps({"id": results.ids[0]})[:-1]
    for name, column in results.columns.items():
        yield b"," + orjson.dumps(name) + b":"
        (value,) = values(column)
        if isinstance(value, np.ndarray):
            yield from _long_list(value)
        else:
            yield orjson.dumps(value, option=_OPTION)
    yield b"}\n"


def _long_list(numbers: Array) -> Iterator[bytes]:
    for start in range(0, len(numbers), _NUMBERS):
        part = orjson.dumps(numbers[start : start + _NUMBERS], option=_OPTION)
        yield (b"," if start else b"[") + part[1:-1]
    yield b"]"


def _line(said: Mapping[str, Any]) -> bytes:
    return orjson.dumps(said, option=orjson.OPT_APPEND_NEWLINE)
