"""Parquet and Arrow IPC in: columns, and record batches as they come."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hsoftmax.scoring.bundle_info import BundleInfo
from hsoftmax.scoring.errors import CallError, ScoringError
from hsoftmax.scoring.row_batch import RowBatch, RowId, RowRequirements
from hsoftmax.scoring.task import TargetShape, ValueKind

from .arrow_batch import Arrow, id_column, is_list, parse_batch
from .columns import Columns, id_fallback_column, input_columns
from .reader import Position, RawBatch, skip_rows, target_shape_of

_BUFFER = 2**20
_BATCH_BYTES = 16 * 2**20  # of hidden states decoded at once


@dataclass
class ArrowReader:
    """Files of record batches; one is read at a time, from wherever the position says."""

    files: tuple[Path, ...]
    columns: Columns
    inputs: tuple[str, ...]
    target_shape: TargetShape
    id_kind: ValueKind
    total: int | None
    _rows_at_once: int
    _at: Position | None = None
    _rest: Arrow = None
    _batches: Iterator[Arrow] = field(default_factory=lambda: iter(()))

    def begin(self) -> Position:
        return Position(0, 0, 1)

    def read(self, position: Position, count: int) -> RawBatch | None:
        while True:
            batch = self._take(position, count)
            if batch is not None:
                rows = batch.num_rows
                end = Position(position.file, position.offset + rows, position.line + rows)
                self._at = end
                return RawBatch(position, end, rows, batch)
            if position.file + 1 == len(self.files):
                return None
            position = Position(position.file + 1, 0, 1)

    def skip(self, position: Position, count: int) -> tuple[Position, int]:
        return skip_rows(position, count, self._counts)

    @cached_property
    def _counts(self) -> list[int]:
        """How many rows each file has."""
        return [_count(path) for path in self.files]

    def parse(self, raw_batch: RawBatch, requirements: RowRequirements) -> RowBatch:
        return parse_batch(
            raw_batch.content, self.columns, self.inputs, raw_batch.start.line, requirements
        )

    def ids(self) -> Iterator[Sequence[RowId]]:
        alone = [self.columns.id]
        for path in self.files:
            try:
                for batch in _batches_from(path, 0, alone, self._rows_at_once):
                    yield id_column(batch, self.columns.id)
            except (pa.ArrowException, OSError) as error:
                raise ScoringError(f"{path}: could not be read: {_first(error)}") from None

    def fraction(self, position: Position) -> float:
        return position.offset / max(1, self.total or 0) if len(self.files) == 1 else (
            position.file / len(self.files))  # fmt: skip

    def close(self) -> None:
        self._batches, self._rest, self._at = iter(()), None, None

    def _take(self, position: Position, count: int) -> Arrow:
        """Up to `count` rows from here on, as one batch; None at the file's end."""
        if position != self._at:
            names = _needed(self.columns, self.inputs)
            self._rest = None
            self._batches = _batches_from(
                self.files[position.file], position.offset, names, self._rows_at_once
            )
        taken, missing = [], count
        while missing and (batch := self._next()) is not None:
            taken.append(batch.slice(0, missing))
            self._rest = batch.slice(missing) if batch.num_rows > missing else None
            missing -= taken[-1].num_rows
        if len(taken) <= 1:
            return taken[0] if taken else None
        return pa.Table.from_batches(taken).combine_chunks().to_batches()[0]

    def _next(self) -> Arrow:
        rest, self._rest = self._rest, None
        if rest is not None:
            return rest
        try:
            return next((batch for batch in self._batches if batch.num_rows), None)
        except (pa.ArrowException, OSError) as error:
            at = self._at.file if self._at else 0
            raise ScoringError(f"{self.files[at]}: could not be read on: {_first(error)}") from None


def open_reader(files: Sequence[Path], columns: Columns, bundle_info: BundleInfo) -> ArrowReader:
    """Raises CallError where a file is not what its name says, or lacks what is needed."""
    opened = [_open(path) for path in files]
    schemas = [schema for schema, _ in opened]
    inputs = [input_columns(columns, schema.names, bundle_info.hidden_size) for schema in schemas]
    for path, schema, names in zip(files, schemas, inputs, strict=True):
        expect_types(path, schema, columns, names, bundle_info.hidden_size)
    if any(names != inputs[0] for names in inputs):
        raise CallError("input: expected the same columns in every file, got different ones")
    counts = [rows for _, rows in opened]
    integral = all(_is_integral(schema, columns.id) for schema in schemas)
    return ArrowReader(
        files=tuple(files),
        columns=columns,
        inputs=inputs[0],
        target_shape=target_shape_of(schemas[0].names, columns.target, columns.targets),
        id_kind="int64" if integral else "string",
        total=None if None in counts else sum(count or 0 for count in counts),
        _rows_at_once=max(1, min(65_536, _BATCH_BYTES // (4 * bundle_info.hidden_size))),
    )


def _is_integral(schema: Arrow, id: str) -> bool:
    """Whether ids of such rows are integers of 64 bits."""
    kind = schema.field(id).type if id in schema.names else None
    return bool(pa.types.is_integer(kind) and not pa.types.is_uint64(kind)) if kind else False


def detect_columns(path: Path, columns: Columns) -> Columns:
    """`custom_id` for the id, if there is a column of that name."""
    return id_fallback_column(columns, _open(path)[0].names)


def _open(path: Path) -> tuple[Arrow, int | None]:
    """(schema, rows where the file says so)."""
    try:
        if path.suffix == ".parquet":
            parquet = pq.ParquetFile(path)
            return parquet.schema_arrow, parquet.metadata.num_rows
        with pa.OSFile(str(path)) as file:
            return _ipc(file).schema, None
    except (pa.ArrowException, OSError) as error:
        kind = "Parquet" if path.suffix == ".parquet" else "Arrow IPC"
        raise CallError(f"{path}: expected {kind}, got: {_first(error)}") from None


def _ipc(file: Arrow) -> Arrow:
    """A reader of either form of Arrow IPC: that of a file, and that of a stream."""
    magic = file.read(6)
    file.seek(0)
    return pa.ipc.open_file(file) if magic == b"ARROW1" else pa.ipc.open_stream(file)


def _needed(columns: Columns, inputs: Sequence[str]) -> list[str]:
    return [*inputs, columns.id, columns.target, columns.targets, columns.sequence]


def _batches_from(path: Path, start: int, names: list[str], rows: int) -> Iterator[Arrow]:
    """The file's batches, without its first `start` rows."""
    if path.suffix == ".parquet":
        skipped, batches = _parquet_groups(path, start, names, rows)
    else:
        skipped, first = _ipc_before(path, start)
        batches = _ipc_batches(path, names, first)
    for batch in batches:
        begins, skipped = skipped, skipped + batch.num_rows
        if skipped > start:
            yield batch.slice(max(0, start - begins))


def _parquet_groups(
    path: Path, start: int, names: list[str], rows: int
) -> tuple[int, Iterator[Arrow]]:
    """(rows before the first row group that is needed, batches from it on)."""
    # Buffering ahead would take in all row groups that are asked for, which is the whole file.
    file = pq.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER)
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    ends = np.cumsum(sizes) if sizes else np.zeros(0, dtype=np.int64)
    first = int(np.searchsorted(ends, start, side="right"))
    wanted = [name for name in names if name in file.schema_arrow.names]
    groups = list(range(first, len(sizes)))
    batches = file.iter_batches(rows, row_groups=groups, columns=wanted) if groups else iter(())
    return int(sum(sizes[:first])), batches


def _count(path: Path) -> int:
    """Rows of a file."""
    try:
        if path.suffix == ".parquet":
            return int(pq.ParquetFile(path).metadata.num_rows)
        return sum(_ipc_sizes(path))
    except (pa.ArrowException, OSError) as error:
        raise ScoringError(f"{path}: could not be read on: {_first(error)}") from None


def _ipc_sizes(path: Path) -> Iterator[int]:
    """Rows of each batch: of a mapped file no more is read than their headers."""
    with pa.memory_map(str(path)) as file:
        reader = _ipc(file)
        if hasattr(reader, "get_batch"):
            yield from (reader.get_batch(i).num_rows for i in range(reader.num_record_batches))
        else:
            yield from (batch.num_rows for batch in reader)


def _ipc_before(path: Path, start: int) -> tuple[int, int]:
    """(rows, batches) wholly before row `start`."""
    before = (0, 0)
    for batches, rows in enumerate(accumulate(_ipc_sizes(path) if start else ()), 1):
        if rows > start:
            break
        before = (rows, batches)
    return before


def _ipc_batches(path: Path, names: list[str], first: int) -> Iterator[Arrow]:
    """From batch `first` on; the batches before are read over only in a stream."""
    with pa.OSFile(str(path)) as file:
        reader = _ipc(file)
        wanted = [name for name in dict.fromkeys(names) if name in reader.schema.names]
        if hasattr(reader, "get_batch"):
            for i in range(first, reader.num_record_batches):
                yield reader.get_batch(i).select(wanted)
        else:
            for batch in islice(reader, first, None):
                yield batch.select(wanted)


def _first(error: Exception) -> str:
    """The first sentence of what may be many lines."""
    return str(error).partition("\n")[0].partition(". ")[0]


# --- types --------------------------------------------------------------------------------------


def expect_types(
    path: Path | str,
    schema: Arrow,
    columns: Columns,
    inputs: Sequence[str],
    width: int,
) -> None:
    """Raise CallError unless the columns of rows are of types that can be theirs."""
    if len(inputs) == 1 and width > 1:
        _expect_list(path, inputs[0], schema.field(inputs[0]).type, width)
    for name in inputs if len(inputs) > 1 else ():
        kind = schema.field(name).type
        if not _is_number(kind):
            raise CallError(f"{path}: {name}: expected numbers, got {kind}")
    for name in (columns.id, columns.sequence, columns.target):
        if name in schema.names and not _is_name(schema.field(name).type):
            got = schema.field(name).type
            raise CallError(f"{path}: {name}: expected integers or strings, got {got}")
    if columns.targets in schema.names and columns.target not in schema.names:
        got = schema.field(columns.targets).type
        if not (is_list(got) and _is_name(got.value_type)):
            raise CallError(f"{path}: targets: expected lists of integers or strings, got {got}")


def _expect_list(path: Path | str, name: str, kind: Arrow, width: int) -> None:
    if not (is_list(kind) and _is_number(kind.value_type)):
        raise CallError(f"{path}: {name}: expected lists of {width} numbers, got {kind}")
    if pa.types.is_fixed_size_list(kind) and kind.list_size != width:
        raise CallError(f"{path}: {name}: expected {width} numbers in a row, got {kind.list_size}")


def _is_number(kind: Arrow) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _is_name(kind: Arrow) -> bool:
    types = pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        types.is_integer(kind)
        or types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
        or types.is_null(kind)
    )
