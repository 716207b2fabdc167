"""Answers in each format: whole, or a matrix of any size in pieces.

A sheet says what comes before the rows, makes pieces of each slice of rows, and says what comes
after them. A piece is small enough that writing it holds nobody up for long.
"""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, Protocol

import numpy as np

from hsoftmax.models.arrays import Array
from hsoftmax.service.codecs.arrow import ArrowWriter
from hsoftmax.service.codecs.json import encode, encode_array
from hsoftmax.service.codecs.npy import npy_bytes, npy_header
from hsoftmax.service.errors import NotAcceptable
from hsoftmax.service.http.content_types import Format

from .operations import MatrixResult
from .output_values import numbers

PIECE = 2**15  # numbers, which are written in about a millisecond

Fields = Mapping[str, Any]


class Encoder(Protocol):
    """A matrix on its way out."""

    def length(self) -> int | None:
        """The bytes that it will have, if that is known."""

    def begin(self) -> bytes:
        """What comes before the rows."""

    def pieces(self, log_probs: Array) -> Iterator[bytes]:
        """The next rows."""

    def end(self) -> bytes:
        """What comes after them."""


def sheet(form: Format, answer: Mapping[str, str], matrix: MatrixResult, rows: int) -> Encoder:
    """An empty sheet for so many rows; `answer` is what the rows stand beside."""
    if form is Format.NPY:
        return NpySheet(matrix, rows)
    if form is Format.ARROW:
        return ArrowSheet(matrix, answer)
    return JsonSheet(matrix, answer)


def written(form: Format, answer: Mapping[str, str], fields: Fields) -> bytes:
    """A whole answer. Raises NotAcceptable if the format cannot hold it."""
    if form is Format.NPY:
        return _npy(fields)
    if form is Format.ARROW:
        return _arrow(answer, fields)
    return encode({**answer, **fields})


class JsonSheet:
    """Lists of numbers in the field of an object."""

    def __init__(self, matrix: MatrixResult, answer: Mapping[str, str]) -> None:
        self._matrix = matrix
        self._before = encode(answer)[:-1] + f',"{matrix.field}":['.encode()
        self._comma = b""

    def length(self) -> None:
        """Nobody knows before it is written."""

    def begin(self) -> bytes:
        return self._before

    def pieces(self, log_probs: Array) -> Iterator[bytes]:
        width = log_probs.shape[1]
        if width > PIECE:
            return chain.from_iterable(map(self._row, log_probs))
        step = max(1, PIECE // max(width, 1))
        return (self._list(log_probs[i : i + step]) for i in range(0, len(log_probs), step))

    def end(self) -> bytes:
        return b"]}"

    def _list(self, log_probs: Array) -> bytes:
        """Numbers or rows, without the brackets around them, and what parts them from others."""
        comma, self._comma = self._comma, b","
        values = numbers(log_probs, self._matrix.log)
        return comma + memoryview(encode_array(np.ascontiguousarray(values)))[1:-1]

    def _row(self, log_probs: Array) -> Iterator[bytes]:
        yield self._comma + b"["
        self._comma = b""
        for i in range(0, len(log_probs), PIECE):
            yield self._list(log_probs[i : i + PIECE])
        yield b"]"


class NpySheet:
    """float32, row after row."""

    def __init__(self, matrix: MatrixResult, rows: int) -> None:
        self._log = matrix.log
        self._header = npy_header((rows, matrix.width))
        self._length = len(self._header) + 4 * rows * matrix.width

    def length(self) -> int:
        return self._length

    def begin(self) -> bytes:
        return self._header

    def pieces(self, log_probs: Array) -> Iterator[bytes]:
        flat = log_probs.reshape(-1)
        starts = range(0, len(flat), 8 * PIECE)
        return (npy_bytes(numbers(flat[i : i + 8 * PIECE], self._log)) for i in starts)

    def end(self) -> bytes:
        return b""


class ArrowSheet:
    """A column of lists of one length; a slice is a record batch."""

    def __init__(self, matrix: MatrixResult, answer: Mapping[str, str]) -> None:
        self._matrix = matrix
        self._writer = ArrowWriter(answer)

    def length(self) -> None:
        """Nobody knows before it is written."""

    def begin(self) -> bytes:
        return b""

    def pieces(self, log_probs: Array) -> Iterator[bytes]:
        yield self._writer.matrix(self._matrix.field, numbers(log_probs, self._matrix.log))

    def end(self) -> bytes:
        return self._writer.end()


def _npy(fields: Fields) -> bytes:
    if "results" in fields:
        raise NotAcceptable("accept: a .npy holds one array: expected JSON or Arrow for this")
    (values,) = fields.values()
    if isinstance(values, list):
        if len({len(row) for row in values}) > 1:
            raise NotAcceptable("accept: a .npy holds rows of one length: expected JSON or Arrow")
        values = np.array(values)
    return npy_header(values.shape) + npy_bytes(values)


def _arrow(answer: Mapping[str, str], fields: Fields) -> bytes:
    results = fields.get("results")
    told = {name: str(value) for name, value in fields.items() if isinstance(value, int)}
    writer = ArrowWriter({**answer, **told})
    if results is not None:
        columns = {name: [row[name] for row in results] for name in results[0]}
        return writer.columns(columns) + writer.end()
    ((name, values),) = ((n, v) for n, v in fields.items() if n not in told)
    if isinstance(values, np.ndarray) and values.ndim > 2:
        raise NotAcceptable("accept: expected JSON or .npy for this")
    if isinstance(values, np.ndarray) and values.ndim == 2:
        return writer.matrix(name, values) + writer.end()
    return writer.columns({name: values}) + writer.end()
