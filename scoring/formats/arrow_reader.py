"""Reads Parquet and Arrow IPC files as record batches."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hsoftmax.scoring.bundle_info import BundleInfo
from hsoftmax.scoring.errors import CallError, ScoringError
from hsoftmax.scoring.requirements import RowId, RowRequirements
from hsoftmax.scoring.row_batch import RowBatch
from hsoftmax.scoring.task import TargetShape, ValueKind

from .arrow_batch import (
    becomes_text,
    copied_sizes,
    expect_structure,
    id_column,
    is_list,
    is_text_type,
    number_columns,
    parse_batch,
)
from .arrow_sizes import end_within, pieces_within
from .arrow_types import Arrow, plain_schema, plain_type
from .columns import Columns, find_inputs, id_fallback_column
from .parquet_batches import parquet_batches
from .reader import Position, RawBatch, skip_rows, target_shape_of

_BATCH_BYTES = 16 * 2**20  # of rows that are decoded together
_MAX_BATCH_ROWS = 65_536


@dataclass
class ArrowReader:
    """Reads files of record batches. One file is open at a time, at the position last read."""

    states_rows = True

    files: tuple[Path, ...]
    columns: Columns
    inputs: tuple[str, ...]
    target_shape: TargetShape
    id_kind: ValueKind
    total: int | None
    _batch_rows: int
    _position: Position | None = None
    _path: Path = Path()
    _rest: Arrow = None
    _batches: Iterator[Arrow] = field(default_factory=lambda: iter(()))

    def begin(self) -> Position:
        return Position(0, 0, 1)

    def read(self, position: Position, count: int) -> RawBatch | None:
        while True:
            batch = self._read_batch(position, count)
            if batch is not None:
                rows = batch.num_rows
                end = Position(position.file, position.offset + rows, position.line + rows)
                self._position = end
                return RawBatch(position, end, rows, batch)
            if position.file + 1 == len(self.files):
                return None
            position = Position(position.file + 1, 0, 1)

    def skip(self, position: Position, count: int) -> tuple[Position, int]:
        return skip_rows(position, count, self._row_counts)

    @cached_property
    def _row_counts(self) -> list[int]:
        """The number of rows of each file."""
        return [_count_rows(path) for path in self.files]

    def parse(self, raw_batch: RawBatch, requirements: RowRequirements) -> RowBatch:
        return parse_batch(
            raw_batch.content, self.columns, self.inputs, raw_batch.start.line, requirements
        )

    def ids(self) -> Iterator[Sequence[RowId]]:
        for path in self.files:
            batches = _batches_from(path, 0, [self.columns.id], self._batch_rows)
            while (batch := _next_batch(path, batches)) is not None:
                for piece in pieces_within(batch, _BATCH_BYTES):
                    yield id_column(piece, self.columns.id)

    def fraction(self, position: Position) -> float:
        return position.offset / max(1, self.total or 0) if len(self.files) == 1 else (
            position.file / len(self.files))  # fmt: skip

    def close(self) -> None:
        self._batches, self._rest, self._position = iter(()), None, None

    def _read_batch(self, position: Position, count: int) -> Arrow:
        """Reads up to `count` rows as one batch, fewer if their bytes are many. None at the end."""
        if position != self._position:
            names = _used_columns(self.columns, self.inputs)
            self._rest = None
            path = self.files[position.file]
            self._batches = _batches_from(path, position.offset, names, self._batch_rows)
            self._path = path
        parts, missing, room = [], count, float(_BATCH_BYTES)
        while missing and room > 0 and (batch := self._next()) is not None:
            ends = np.cumsum(copied_sizes(batch, self.columns, self.inputs))
            rows = min(missing, end_within(ends, 0, room))
            parts.append(batch.slice(0, rows))
            self._rest = batch.slice(rows) if batch.num_rows > rows else None
            missing, room = missing - rows, room - ends[rows - 1]
        if len(parts) <= 1:
            return parts[0] if parts else None
        return pa.Table.from_batches(parts).combine_chunks().to_batches()[0]

    def _next(self) -> Arrow:
        """Returns the next batch with rows, or the rest of the last one."""
        rest, self._rest = self._rest, None
        if rest is not None:
            return rest
        return _next_batch(self._path, self._batches)


def open_reader(files: Sequence[Path], columns: Columns, bundle_info: BundleInfo) -> ArrowReader:
    """Opens Parquet or Arrow IPC files.

    Raises:
        CallError: a file is not what its extension says, or lacks a column.
    """
    opened = [_open(path) for path in files]
    schemas = [schema for schema, _ in opened]
    inputs = [find_inputs(columns, schema.names, bundle_info) for schema in schemas]
    for path, schema, names in zip(files, schemas, inputs, strict=True):
        expect_types(path, schema, columns, names, bundle_info)
    if any(names != inputs[0] for names in inputs):
        raise CallError("input: expected the same columns in every file, got different ones")
    counts = [rows for _, rows in opened]
    integral = all(has_integral_ids(schema, columns.id) for schema in schemas)
    batch_rows = min(_MAX_BATCH_ROWS, _BATCH_BYTES // (4 * bundle_info.hidden_size))
    return ArrowReader(
        files=tuple(files),
        columns=columns,
        inputs=inputs[0],
        target_shape=target_shape_of(schemas[0].names, columns.target, columns.targets),
        id_kind="int64" if integral else "string",
        total=None if None in counts else sum(count or 0 for count in counts),
        _batch_rows=max(1, batch_rows),
    )


def has_integral_ids(schema: Arrow, id: str) -> bool:
    """True if there are ids and all are integers within int64."""
    kind = plain_type(schema.field(id).type) if id in schema.names else None
    return (
        bool(pa.types.is_integer(kind) and not pa.types.is_uint64(kind))
        if kind is not None
        else False
    )


def detect_columns(path: Path, columns: Columns) -> Columns:
    """Returns the columns with `custom_id` for the id, if the file has only that one."""
    return id_fallback_column(columns, _open(path)[0].names)


def _open(path: Path) -> tuple[Arrow, int | None]:
    """Returns (schema, number of rows if the file says so). Raises CallError."""
    try:
        if path.suffix == ".parquet":
            parquet = pq.ParquetFile(path)
            schema, rows = parquet.schema_arrow, parquet.metadata.num_rows
        else:
            with pa.OSFile(str(path)) as file:
                schema, rows = _open_ipc(file).schema, None
        _ = schema.names  # they are decoded only here
        return schema, rows
    except Exception as error:  # pyarrow's, of any type
        kind = "Parquet" if path.suffix == ".parquet" else "Arrow IPC"
        raise CallError(f"{path}: expected {kind}, got: {_first_sentence(error)}") from None


def _open_ipc(file: Arrow) -> Arrow:
    """Opens Arrow IPC in the file format or in the stream format."""
    magic = file.read(6)
    file.seek(0)
    return pa.ipc.open_file(file) if magic == b"ARROW1" else pa.ipc.open_stream(file)


def _used_columns(columns: Columns, inputs: Sequence[str]) -> list[str]:
    return [*inputs, columns.id, columns.target, columns.targets, columns.sequence]


def _batches_from(path: Path, start: int, names: list[str], rows: int) -> Iterator[Arrow]:
    """Yields the batches of a file without its first `start` rows."""
    if path.suffix == ".parquet":
        skipped, batches = parquet_batches(path, start, names, rows)
    else:
        skipped, first = _ipc_batches_before(path, start)
        batches = _ipc_batches(path, names, first)
    for batch in batches:
        begins, skipped = skipped, skipped + batch.num_rows
        if skipped > start:
            yield batch.slice(max(0, start - begins))


def _count_rows(path: Path) -> int:
    with _reading(path):
        if path.suffix == ".parquet":
            return int(pq.ParquetFile(path).metadata.num_rows)
        return sum(_ipc_batch_rows(path))


def _ipc_batch_rows(path: Path) -> Iterator[int]:
    """Yields the rows of each batch. Of a mapped file only the batches' headers are read."""
    with pa.memory_map(str(path)) as file:
        reader = _open_ipc(file)
        if hasattr(reader, "get_batch"):
            yield from (reader.get_batch(i).num_rows for i in range(reader.num_record_batches))
        else:
            yield from (batch.num_rows for batch in reader)


def _ipc_batches_before(path: Path, start: int) -> tuple[int, int]:
    """Returns the number of (rows, batches) that lie wholly before row `start`."""
    before = (0, 0)
    for batches, rows in enumerate(accumulate(_ipc_batch_rows(path) if start else ()), 1):
        if rows > start:
            break
        before = (rows, batches)
    return before


def _ipc_batches(path: Path, names: list[str], first: int) -> Iterator[Arrow]:
    """Yields the batches from `first` on. The stream format has to read those before it, too."""
    with pa.OSFile(str(path)) as file:
        reader = _open_ipc(file)
        present = [name for name in dict.fromkeys(names) if name in reader.schema.names]
        if hasattr(reader, "get_batch"):
            for i in range(first, reader.num_record_batches):
                yield reader.get_batch(i).select(present)
        else:
            for batch in islice(reader, first, None):
                yield batch.select(present)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """The boundary around pyarrow's calls; of its own it raises also MemoryError for a bad size."""
    try:
        yield
    except Exception as error:  # pyarrow's, of any type
        raise ScoringError(f"{path}: could not be read on: {_first_sentence(error)}") from None


def _next_batch(path: Path, batches: Iterator[Arrow]) -> Arrow:
    """Returns the next batch with rows, None at the end."""
    with _reading(path):
        batch = next((batch for batch in batches if batch.num_rows), None)
        if batch is not None:
            expect_structure(batch)
        return batch


def _first_sentence(error: Exception) -> str:
    """Returns the first sentence of a message that may have many lines."""
    return str(error).partition("\n")[0].partition(". ")[0]


# --- types --------------------------------------------------------------------------------------


def expect_types(
    path: Path | str,
    schema: Arrow,
    columns: Columns,
    inputs: Sequence[str],
    bundle_info: BundleInfo,
) -> None:
    """Raises CallError unless the columns have usable types; `path` names the input."""
    given, width = schema.field(inputs[0]).type, bundle_info.hidden_size
    # One word of a dictionary could stand in any number of lists, and would be copied into each.
    is_expanding = is_list(given) and pa.types.is_dictionary(given.value_type)
    schema = plain_schema(schema, number_columns(columns, inputs))
    has_texts = bundle_info.takes_text and is_text_type(schema.field(inputs[0]).type)
    has_texts = has_texts and not is_expanding
    if len(inputs) == 1 and width > 1 and not has_texts:
        _expect_list(path, inputs[0], schema.field(inputs[0]).type, width)
    for name in inputs if len(inputs) > 1 else ():
        kind = schema.field(name).type
        if not _is_number(kind):
            raise CallError(f"{path}: {name}: expected numbers, got {kind}")
    for name, is_known in (
        (columns.id, _is_id),
        (columns.sequence, _is_id),
        (columns.target, _is_target),
    ):
        if name in schema.names and not is_known(got := schema.field(name).type):
            raise CallError(f"{path}: {name}: expected integers or strings, got {got}")
    if columns.targets in schema.names and columns.target not in schema.names:
        got = schema.field(columns.targets).type
        if not (is_list(got) and _is_target(got.value_type)):
            raise CallError(f"{path}: targets: expected lists of integers or strings, got {got}")


def _expect_list(path: Path | str, name: str, kind: Arrow, width: int) -> None:
    if not (is_list(kind) and _is_number(kind.value_type)):
        raise CallError(f"{path}: {name}: expected lists of {width} numbers, got {kind}")
    if pa.types.is_fixed_size_list(kind) and kind.list_size != width:
        raise CallError(f"{path}: {name}: expected {width} numbers in a row, got {kind.list_size}")


def _is_number(kind: Arrow) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _is_id(kind: Arrow) -> bool:
    """True for the types of ids and sequences."""
    return becomes_text(kind) or _is_target(kind)


def _is_target(kind: Arrow) -> bool:
    """True for the types of targets: numbers, of which fractions fail their rows, and labels."""
    types = pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        _is_number(kind)
        or types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
        or types.is_null(kind)
    )
