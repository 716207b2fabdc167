"""Encodes responses in each content type: whole, or a matrix of any size in pieces.

A matrix encoder gives the bytes in front of the rows, the pieces of each slice of rows, and the
bytes behind them. A piece is small, so that its encoding does not delay other requests.
"""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, Protocol

import numpy as np

from hsoftmax.models.arrays import Array
from hsoftmax.service.codecs.arrow import ArrowWriter
from hsoftmax.service.codecs.json import encode as encode_json
from hsoftmax.service.codecs.json import encode_array
from hsoftmax.service.codecs.npy import npy_bytes, npy_header
from hsoftmax.service.errors import NotAcceptable
from hsoftmax.service.http.content_types import Format

from .operations import MatrixResult
from .output_values import to_values

PIECE_VALUES = 2**15  # numbers in a piece, which take about a millisecond to encode

_Fields = Mapping[str, Any]


class MatrixEncoder(Protocol):
    """Encodes one matrix, slice by slice."""

    def length(self) -> int | None:
        """The length of the encoded matrix in bytes, or None if it is unknown in advance."""

    def begin(self) -> bytes:
        """The bytes in front of the rows."""

    def pieces(self, log_probs: Array) -> Iterator[bytes]:
        """The encoded rows of a slice, in pieces."""

    def end(self) -> bytes:
        """The bytes behind the rows."""


def matrix_encoder(
    response_type: Format, bundle_fields: Mapping[str, str], matrix: MatrixResult, rows: int
) -> MatrixEncoder:
    """The encoder of a matrix with so many rows; `bundle_fields` name the bundle."""
    if response_type is Format.NPY:
        return NpyEncoder(matrix, rows)
    if response_type is Format.ARROW:
        return ArrowEncoder(matrix, bundle_fields)
    return JsonEncoder(matrix, bundle_fields)


def encode(response_type: Format, bundle_fields: Mapping[str, str], fields: _Fields) -> bytes:
    """Encode a whole response. Raises NotAcceptable if the content type cannot hold it."""
    if "children" in fields and response_type is not Format.JSON:
        raise NotAcceptable("accept: children have names beside their numbers: expected JSON")
    if response_type is Format.NPY:
        return _npy(fields)
    if response_type is Format.ARROW:
        return _arrow(bundle_fields, fields)
    return encode_json({**bundle_fields, **fields})


class JsonEncoder:
    """Encodes the matrix as lists of numbers in one field of a JSON object."""

    def __init__(self, matrix: MatrixResult, bundle_fields: Mapping[str, str]) -> None:
        self._matrix = matrix
        self._prefix = encode_json(bundle_fields)[:-1] + f',"{matrix.field}":['.encode()
        self._comma = b""

    def length(self) -> None:
        """None: JSON length is unknown in advance."""

    def begin(self) -> bytes:
        return self._prefix

    def pieces(self, log_probs: Array) -> Iterator[bytes]:
        width = log_probs.shape[1]
        if width > PIECE_VALUES:
            return chain.from_iterable(map(self._row, log_probs))
        step = max(1, PIECE_VALUES // max(width, 1))
        return (self._list(log_probs[i : i + step]) for i in range(0, len(log_probs), step))

    def end(self) -> bytes:
        return b"]}"

    def _list(self, log_probs: Array) -> bytes:
        """Encode numbers or rows without outer brackets, after a comma if others came before."""
        comma, self._comma = self._comma, b","
        values = to_values(log_probs, self._matrix.log, self._matrix.max_log_prob)
        return comma + memoryview(encode_array(np.ascontiguousarray(values)))[1:-1]

    def _row(self, log_probs: Array) -> Iterator[bytes]:
        yield self._comma + b"["
        self._comma = b""
        for i in range(0, len(log_probs), PIECE_VALUES):
            yield self._list(log_probs[i : i + PIECE_VALUES])
        yield b"]"


class NpyEncoder:
    """Encodes the matrix as float32 in row order."""

    def __init__(self, matrix: MatrixResult, rows: int) -> None:
        self._matrix = matrix
        self._header = npy_header((rows, matrix.width))
        self._length = len(self._header) + 4 * rows * matrix.width

    def length(self) -> int:
        return self._length

    def begin(self) -> bytes:
        return self._header

    def pieces(self, log_probs: Array) -> Iterator[bytes]:
        log, max_log_prob = self._matrix.log, self._matrix.max_log_prob
        flat = log_probs.reshape(-1)
        parts = (flat[i : i + 8 * PIECE_VALUES] for i in range(0, len(flat), 8 * PIECE_VALUES))
        return (npy_bytes(to_values(part, log, max_log_prob)) for part in parts)

    def end(self) -> bytes:
        return b""


class ArrowEncoder:
    """Encodes the matrix as a column of lists of equal length; a slice is a record batch."""

    def __init__(self, matrix: MatrixResult, bundle_fields: Mapping[str, str]) -> None:
        self._matrix = matrix
        self._writer = ArrowWriter(bundle_fields)

    def length(self) -> None:
        """None: Arrow length is unknown in advance."""

    def begin(self) -> bytes:
        return b""

    def pieces(self, log_probs: Array) -> Iterator[bytes]:
        values = to_values(log_probs, self._matrix.log, self._matrix.max_log_prob)
        yield self._writer.matrix(self._matrix.field, values)

    def end(self) -> bytes:
        return self._writer.end()


def _npy(fields: _Fields) -> bytes:
    if "results" in fields:
        raise NotAcceptable("accept: a .npy holds one array: expected JSON or Arrow for this")
    (values,) = fields.values()
    if isinstance(values, list):
        if len({len(row) for row in values}) > 1:
            raise NotAcceptable("accept: a .npy holds rows of one length: expected JSON or Arrow")
        values = np.array(values)
    return npy_header(values.shape) + npy_bytes(values)


def _arrow(bundle_fields: Mapping[str, str], fields: _Fields) -> bytes:
    results = fields.get("results")
    metadata = {name: str(value) for name, value in fields.items() if isinstance(value, int)}
    writer = ArrowWriter({**bundle_fields, **metadata})
    if results is not None:
        columns = {name: [row[name] for row in results] for name in results[0]}
        return writer.columns(columns) + writer.end()
    ((name, values),) = ((n, v) for n, v in fields.items() if n not in metadata)
    if isinstance(values, np.ndarray) and values.ndim > 2:
        raise NotAcceptable("accept: expected JSON or .npy for this")
    if isinstance(values, np.ndarray) and values.ndim == 2:
        return writer.matrix(name, values) + writer.end()
    return writer.columns({name: values}) + writer.end()
