"""Arrow IPC streams: hidden states and targets in, answers as record batches out.

pyarrow is an extra, and large: it is imported when somebody asks for it.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hsoftmax.models.arrays import Array
from hsoftmax.scoring.formats.pyarrow_check import has_pyarrow
from hsoftmax.scoring.stream.arrow_framing import is_compressed
from hsoftmax.service.errors import (
    InvalidQuery,
    NotAcceptable,
    ServiceError,
    Unreadable,
    UnsupportedMediaType,
)

_MISSING = "Arrow: this service has no pyarrow; its operator may install the extra `arrow`"


def expect_arrow() -> None:
    """Raise NotAcceptable, for answers, if pyarrow is not there."""
    if not has_pyarrow():
        raise NotAcceptable(_MISSING)


def expect_readable() -> None:
    """Raise UnsupportedMediaType, for bodies, if pyarrow is not there."""
    if not has_pyarrow():
        raise UnsupportedMediaType(_MISSING)


def read_arrow(body: bytes) -> tuple[Array, list[Any] | None]:
    """Column `inputs` as a matrix, and column `targets`, if there is one, as lists.

    Raises:
        UnsupportedMediaType: pyarrow is not there, or buffers are compressed.
        Unreadable: not an Arrow stream.
        InvalidQuery: other columns than these, or of other types.
    """
    expect_readable()
    import pyarrow as pa

    table = _table(pa, body)
    if unknown := set(table.column_names) - {"inputs", "targets"}:
        raise InvalidQuery(f"columns: expected inputs, targets, got {min(unknown)[:60]!r}")
    if len(set(table.column_names)) != table.num_columns or "inputs" not in table.column_names:
        raise InvalidQuery("columns: expected inputs once, and targets at most once")
    matrix = _matrix(pa, table.column("inputs").combine_chunks())
    return matrix, _targets(pa, table) if "targets" in table.column_names else None


class ArrowWriter:
    """Record batches to the bytes of a stream, piece by piece."""

    def __init__(self, metadata: Mapping[str, str]) -> None:
        import pyarrow as pa

        self._pa = pa
        self._metadata = dict(metadata)
        self._sink = Pieces()
        self._writer: Any = None

    def matrix(self, name: str, values: Array) -> bytes:
        """A batch of one column of lists of one length."""
        pa = self._pa
        flat = pa.array(values.reshape(-1).astype(np.float32, copy=False))
        return self._write({name: pa.FixedSizeListArray.from_arrays(flat, values.shape[1])})

    def columns(self, columns: Mapping[str, Sequence[Any] | Array]) -> bytes:
        """A batch of these columns."""
        return self._write({name: self._array(values) for name, values in columns.items()})

    def end(self) -> bytes:
        """What comes after the last batch."""
        self._writer.close()
        return self._sink.take()

    def _write(self, columns: Mapping[str, Any]) -> bytes:
        pa = self._pa
        batch = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
        if self._writer is None:
            schema = batch.schema.with_metadata(self._metadata)
            self._writer = pa.ipc.new_stream(self._sink, schema)
        self._writer.write_batch(batch.replace_schema_metadata(self._metadata))
        return self._sink.take()

    def _array(self, values: Sequence[Any] | Array) -> Any:  # noqa: ANN401  pyarrow has no types
        pa = self._pa
        if isinstance(values, np.ndarray):
            return pa.array(values.astype(np.float32) if values.dtype.kind == "f" else values)
        if any(isinstance(one, np.ndarray) for one in values):
            kind = np.float32 if values[0].dtype.kind == "f" else np.int64
            lengths = np.cumsum([0, *map(len, values)], dtype=np.int32)
            flat = np.concatenate(values).astype(kind)
            return pa.ListArray.from_arrays(pa.array(lengths), pa.array(flat))
        return pa.array(values)


class Pieces:
    """A file of which what was written is taken away."""

    closed = False

    def __init__(self) -> None:
        self._written: list[bytes] = []

    def write(self, piece: Any) -> int:  # noqa: ANN401  any buffer
        self._written.append(bytes(piece))
        return len(self._written[-1])

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing to give up."""

    def take(self) -> bytes:
        taken, self._written = b"".join(self._written), []
        return taken


def _table(pa: Any, body: bytes) -> Any:  # noqa: ANN401  pyarrow has no types
    try:
        _expect_plain(pa, body)
        table = pa.ipc.open_stream(body).read_all()
        table.validate(full=True)
    except ServiceError:
        raise
    except (pa.ArrowException, OSError, struct.error, ValueError):
        raise Unreadable("body: expected an Arrow IPC stream, which this is not") from None
    return table


def _matrix(pa: Any, column: Any) -> Array:  # noqa: ANN401
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)) or not (
        pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)
    ):
        raise InvalidQuery(f"inputs: expected lists of numbers, got {kind}")
    flat = column.flatten()
    if column.null_count or flat.null_count:
        raise InvalidQuery("inputs: expected numbers, got null")
    rows = len(column)
    widths = column.value_lengths().to_numpy(zero_copy_only=False) if rows else np.zeros(0)
    if rows and (widths != widths[0]).any():
        bad = int(np.argmax(widths != widths[0]))
        raise InvalidQuery(f"inputs row {bad}: expected {widths[0]} numbers, got {widths[bad]}")
    values: Array = flat.to_numpy(zero_copy_only=False)
    return values.reshape(rows, int(widths[0]) if rows else 0)


def _targets(pa: Any, table: Any) -> list[Any]:  # noqa: ANN401
    column = table.column("targets")
    kind, is_a = column.type, pa.types
    if is_a.is_list(kind) or is_a.is_large_list(kind) or is_a.is_fixed_size_list(kind):
        kind = kind.value_type
    if not (is_a.is_integer(kind) or is_a.is_string(kind) or is_a.is_large_string(kind)):
        raise InvalidQuery(f"targets: expected integers, labels or lists of them, got {kind}")
    listed: list[Any] = column.to_pylist()
    for one in listed:
        if one is None or (isinstance(one, list) and None in one):
            raise InvalidQuery("targets: expected integers or labels, got null")
    return listed


def _expect_plain(pa: Any, body: bytes) -> None:  # noqa: ANN401
    """Raise UnsupportedMediaType on compressed buffers: how large they become nothing bounds."""
    for message in pa.ipc.MessageReader.open_stream(body):
        if is_compressed(bytes(message.metadata), message.type):
            raise UnsupportedMediaType(
                "Arrow: expected plain buffers; compress the body (content-encoding) instead"
            )
