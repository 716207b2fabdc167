"""NDJSON records of a stream: writes each record as a line, and a very long line in pieces."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import orjson

from hsoftmax.models.arrays import Array
from hsoftmax.scoring.bundle_info import BundleInfo
from hsoftmax.scoring.formats.ndjson import encode
from hsoftmax.scoring.formats.record_schema import RecordSchema, values
from hsoftmax.scoring.results import RowResults
from hsoftmax.scoring.task import TargetShape, Task, record_fields

_MAX_NUMBERS = 2**15  # in one piece of a long line
_OPTION = orjson.OPT_SERIALIZE_NUMPY


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
