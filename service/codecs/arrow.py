"""Arrow IPC streams: reads hidden states and targets, writes responses as record batches.

pyarrow is an extra, and large: it is imported when a request uses Arrow.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hsoftmax.models.arrays import Array
from hsoftmax.scoring.formats.pyarrow_check import has_pyarrow
from hsoftmax.scoring.stream.arrow_framing import decoded_size
from hsoftmax.service.errors import (
    InvalidQuery,
    NotAcceptable,
    ServiceError,
    TooLarge,
    Unreadable,
    UnsupportedMediaType,
)

from .arrow_column import plain_column
from .arrow_texts import is_texts, read_texts

_NOT_ARROW = "body: expected an Arrow IPC stream, which this is not"
_NO_PYARROW = "Arrow: this service has no pyarrow; its operator may install the extra `arrow`"


def expect_arrow() -> None:
    """Raise NotAcceptable, for a response, if pyarrow is not installed."""
    if not has_pyarrow():
        raise NotAcceptable(_NO_PYARROW)


def expect_readable() -> None:
    """Raise UnsupportedMediaType, for a body, if pyarrow is not installed."""
    if not has_pyarrow():
        raise UnsupportedMediaType(_NO_PYARROW)


def read_arrow(body: bytes, max_bytes: int) -> tuple[Array | list[Any], list[Any] | None]:
    """Read the column `inputs` as a matrix or as texts, and `targets`, if there is one, as lists.

    Raises:
        UnsupportedMediaType: pyarrow is not installed.
        Unreadable: not an Arrow stream.
        TooLarge: compressed buffers, or the rows of a column, have more than `max_bytes` in all.
        InvalidQuery: other columns than these, or of other types.
    """
    expect_readable()
    import pyarrow as pa

    table = _read_table(pa, body, max_bytes)
    if unknown := set(table.column_names) - {"inputs", "targets"}:
        raise InvalidQuery(f"columns: expected inputs, targets, got {min(unknown)[:60]!r}")
    if len(set(table.column_names)) != table.num_columns or "inputs" not in table.column_names:
        raise InvalidQuery("columns: expected inputs once, and targets at most once")
    inputs = _read_inputs(pa, table.column("inputs"), max_bytes)
    if "targets" not in table.column_names:
        return inputs, None
    return inputs, _read_targets(pa, plain_column("targets", table.column("targets"), max_bytes))


class ArrowWriter:
    """Writes record batches as a stream, and returns the bytes of each."""

    def __init__(self, metadata: Mapping[str, str]) -> None:
        import pyarrow as pa

        self._pa = pa
        self._metadata = dict(metadata)
        self._sink = ByteSink()
        self._writer: Any = None

    def matrix(self, name: str, values: Array) -> bytes:
        """The bytes of a batch with one column of lists of equal length."""
        pa = self._pa
        flat = pa.array(values.reshape(-1).astype(np.float32, copy=False))
        return self._write({name: pa.FixedSizeListArray.from_arrays(flat, values.shape[1])})

    def columns(self, columns: Mapping[str, Sequence[Any] | Array]) -> bytes:
        """The bytes of a batch with these columns."""
        return self._write({name: self._array(values) for name, values in columns.items()})

    def end(self) -> bytes:
        """The bytes behind the last batch."""
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
        if values and isinstance(values[0], list):  # labels, perhaps none in any row
            return pa.array(values, pa.list_(pa.string()))
        return pa.array(values)


class ByteSink:
    """A writable file for pyarrow, from which the written bytes are taken."""

    closed = False

    def __init__(self) -> None:
        self._written: list[bytes] = []

    def write(self, piece: Any) -> int:  # noqa: ANN401  any buffer
        """Keep the bytes of any buffer."""
        self._written.append(bytes(piece))
        return len(self._written[-1])

    def flush(self) -> None:
        """Do nothing: no bytes are buffered."""

    def close(self) -> None:
        """Do nothing: there is no file to close."""

    def take(self) -> bytes:
        """Return the bytes written since the last call."""
        taken, self._written = b"".join(self._written), []
        return taken


def _read_table(pa: Any, body: bytes, max_bytes: int) -> Any:  # noqa: ANN401
    try:
        _expect_size(pa, body, max_bytes)
        table = pa.ipc.open_stream(body).read_all()
        table.validate(full=True)
        _ = table.column_names  # they are decoded only here
    except ServiceError:
        raise
    except Exception:  # pyarrow's, of any type
        raise Unreadable(_NOT_ARROW) from None
    if table.num_rows > len(body):  # lists of no numbers take no bytes
        raise Unreadable(_NOT_ARROW)
    return table


def _read_inputs(pa: Any, column: Any, max_bytes: int) -> Array | list[Any]:  # noqa: ANN401
    """Return rows of numbers as a matrix, and texts or lists of words as Python lists."""
    if is_texts(pa, column.type):
        return read_texts(pa, column, max_bytes)
    return _read_matrix(pa, plain_column("inputs", column, max_bytes))


def _read_matrix(pa: Any, column: Any) -> Array:  # noqa: ANN401
    from hsoftmax.scoring.formats.arrow_batch import is_list

    kind = column.type
    if not is_list(kind) or not (
        pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)
    ):
        raise InvalidQuery(
            f"inputs: expected lists of numbers, texts or lists of words, got {kind}"
        )
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


def _read_targets(pa: Any, column: Any) -> list[Any]:  # noqa: ANN401
    column, types = _whole_numbers(pa, column), pa.types
    kind = column.type
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        kind = kind.value_type
    if not (types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind)):
        raise InvalidQuery(f"targets: expected integers, labels or lists of them, got {kind}")
    listed: list[Any] = column.to_pylist()
    for one in listed:
        if one is None or (isinstance(one, list) and None in one):
            raise InvalidQuery("targets: expected integers or labels, got null")
    return listed


def _whole_numbers(pa: Any, column: Any) -> Any:  # noqa: ANN401
    """Return floats as integers if all are whole: a data frame writes so a column with a null."""
    kind, types = column.type, pa.types
    listed = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    if not types.is_floating(kind.value_type if listed else kind):
        return column
    try:
        return column.cast(pa.list_(pa.int64()) if listed else pa.int64())
    except pa.ArrowInvalid:  # a fraction, or a number beyond int64
        return column


def _expect_size(pa: Any, body: bytes, max_bytes: int) -> None:  # noqa: ANN401
    """Raise TooLarge if compressed buffers have more bytes than a body may have."""
    size = sum(
        decoded_size(bytes(message.metadata), message.type, memoryview(message.body or b""))
        for message in pa.ipc.MessageReader.open_stream(body)
    )
    if size > max(max_bytes, len(body)):
        raise TooLarge(f"body: expected at most {max_bytes} bytes when decompressed, got {size}")
