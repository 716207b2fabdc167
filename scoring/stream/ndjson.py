"""NDJSON as a stream: splits bytes into lines, and writes records as lines."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from hsoftmax.models.arrays import Array
from hsoftmax.scoring.bundle_info import BundleInfo
from hsoftmax.scoring.formats.columns import Columns
from hsoftmax.scoring.formats.line_reader import MAX_LINE_BYTES, RawLine
from hsoftmax.scoring.formats.ndjson import BYTE_ORDER_MARK, RowDecoder, encode
from hsoftmax.scoring.formats.record_schema import RecordSchema, values
from hsoftmax.scoring.results import RowResults
from hsoftmax.scoring.row_batch import RowBatch, RowRequirements
from hsoftmax.scoring.task import TargetShape, Task, ValueKind, record_fields

_CHUNK_BYTES = 2**17  # of lines that are parsed in one call, which takes a millisecond or two
_MAX_NUMBERS = 2**15  # in one piece of a long line
_OPTION = orjson.OPT_SERIALIZE_NUMPY


class LineStreamReader:
    """Reads chunks of lines. A line that is too long becomes an error of its own row only."""

    id_kind: ValueKind = "string"

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self.rows = 1
        self._splitter = LineSplitter(max_line_bytes)
        self._decoder = RowDecoder(Columns())
        self._begun = False

    def feed(self, data: bytes) -> Iterator[list[RawLine]]:
        lines = self._splitter.feed(data)
        if lines and not self._begun:
            self._begun = True
            lines[0] = lines[0] and lines[0].removeprefix(BYTE_ORDER_MARK)
        return self._chunks(lines)

    def end(self) -> Iterator[list[RawLine]]:
        return self._chunks(self._splitter.end())

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


class LineStreamWriter:
    """Writes each record as a line, and a very long line in pieces."""

    columnar = False

    def __init__(self, task: Task, bundle_info: BundleInfo) -> None:
        self._task = task
        self._bundle_info = bundle_info

    def encode_rows(self, results: RowResults, target_shape: TargetShape) -> Iterator[bytes]:
        if len(results) == 1 and len(results.scored) and _max_size(results) > _MAX_NUMBERS:
            return _long_line(results)
        fields = record_fields(self._task, target_shape, self._bundle_info)
        return iter((encode(results, RecordSchema(fields, "string", 0)),))

    def opening(self) -> bytes:
        return b""

    def sequences(self, reports: list[dict[str, Any]]) -> bytes:
        return b"".join(_line({"sequence_summary": report}) for report in reports)

    def summary(self, summary: Mapping[str, Any]) -> bytes:
        return _line({"summary": summary})

    def failure(self, error: Mapping[str, Any]) -> bytes:
        return _line(error)


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


def _max_size(results: RowResults) -> int:
    """Returns the size of the largest column."""
    columns = results.columns.values()
    return max((column.size for column in columns if isinstance(column, np.ndarray)), default=0)


def _long_line(results: RowResults) -> Iterator[bytes]:
    """Yields pieces of the line of a chunk's only row; together they are what `encode` returns."""
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
    for start in range(0, len(numbers), _MAX_NUMBERS):
        part = orjson.dumps(numbers[start : start + _MAX_NUMBERS], option=_OPTION)
        yield (b"," if start else b"[") + part[1:-1]
    yield b"]"


def _line(record: Mapping[str, Any]) -> bytes:
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
