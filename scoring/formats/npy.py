"""NPY: a matrix of hidden states, or a structured array with the fields of a row; and out.

An array has no room for text: what is wrong with a row goes to the ledger, and from there into a
file beside the output; the row's values are NaN, and its targets -1.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hsoftmax.models.arrays import Array, Float32, Int64
from hsoftmax.scoring.bundle_info import BundleInfo
from hsoftmax.scoring.errors import CallError, RowError, ScoringError
from hsoftmax.scoring.results import Column, RaggedColumn, RowResults
from hsoftmax.scoring.row_batch import (
    Bool,
    IntegerIds,
    RowBatch,
    RowId,
    RowRequirements,
    TargetOrLabel,
    expect_finite,
    resolve,
    resolve_numbers,
    sums_of,
)
from hsoftmax.scoring.task import RecordField, TargetShape, ValueKind

from .columns import Columns, id_fallback_column
from .reader import Position, RawBatch, skip_rows, target_shape_of
from .record_schema import RecordSchema

_AT_ONCE = 4096  # rows whose ids are read
_PART = 2**19  # bytes that are read, and stay in a core's cache until they have been looked at
_MISSING = {"f": np.nan, "i": -1, "b": False}


# --- in -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stored:
    """One file's array: where its bytes begin, and what one row is."""

    offset: int
    rows: int
    dtype: np.dtype[Any]


@dataclass
class NpyReader:
    """Arrays read with plain reads: mapped pages would count as this process's memory.

    Rows are read where they are parsed, on as many threads.
    """

    files: tuple[Path, ...]
    stored: Sequence[Stored]
    columns: Columns
    target_shape: TargetShape
    id_kind: ValueKind
    total: int | None

    def begin(self) -> Position:
        return Position(0, 0, 1)

    def read(self, position: Position, count: int) -> RawBatch | None:
        """Where to read them, which whoever parses them does."""
        while position.offset >= self.stored[position.file].rows:
            if position.file + 1 == len(self.files):
                return None
            position = Position(position.file + 1, 0, 1)
        count = min(count, self.stored[position.file].rows - position.offset)
        end = Position(position.file, position.offset + count, position.line + count)
        return RawBatch(position, end, count, None)

    def skip(self, position: Position, count: int) -> tuple[Position, int]:
        return skip_rows(position, count, [one.rows for one in self.stored])

    def parse(self, raw_batch: RawBatch, requirements: RowRequirements) -> RowBatch:
        hidden = np.empty((raw_batch.rows, requirements.bundle_info.hidden_size), dtype=np.float32)
        sums = np.empty(raw_batch.rows, dtype=np.float32)
        fields = self._fields(raw_batch.start.file, raw_batch.rows)
        for at, part in self._parts(raw_batch):
            numbers = part[(self.columns.input or ("input",))[0]] if part.dtype.names else part
            with np.errstate(over="ignore", invalid="ignore"):
                hidden[at] = numbers
            sums[at] = sums_of(hidden[at])
            for name, field in fields.items():
                field[at] = part[name]
        return _rows(hidden, sums, fields, self.columns, raw_batch.start.line, requirements)

    def ids(self) -> Iterator[Sequence[RowId]]:
        position = self.begin()
        while (raw_batch := self.read(position, _AT_ONCE)) is not None:
            position = raw_batch.end
            if self.columns.id not in (self.stored[raw_batch.start.file].dtype.names or ()):
                yield [None] * raw_batch.rows
                continue
            for _, part in self._parts(raw_batch):
                yield part[self.columns.id].tolist()

    def _fields(self, file: int, rows: int) -> dict[str, Array]:
        """Room for all that rows say beside their hidden states."""
        dtype, columns = self.stored[file].dtype, self.columns
        known = (columns.id, columns.target, columns.targets, columns.sequence)
        return {name: np.empty(rows, dtype[name]) for name in dtype.names or () if name in known}

    def _parts(self, raw_batch: RawBatch) -> Iterator[tuple[slice, Array]]:
        """A few rows at a time and where in the block; the next ones are read over them."""
        path, stored = self.files[raw_batch.start.file], self.stored[raw_batch.start.file]
        at_once = max(1, _PART // stored.dtype.itemsize)
        some = np.empty(min(raw_batch.rows, at_once), stored.dtype)
        with path.open("rb") as file:
            file.seek(stored.offset + raw_batch.start.offset * stored.dtype.itemsize)
            for start in range(0, raw_batch.rows, at_once):
                part = some[: raw_batch.rows - start]
                if file.readinto(part.view(np.uint8).data) != part.nbytes:
                    raise ScoringError(f"{path}: expected as many rows as when it was opened")
                yield slice(start, start + len(part)), part

    def fraction(self, position: Position) -> float:
        before = sum(one.rows for one in self.stored[: position.file]) + position.offset
        return before / max(1, self.total or 0)

    def close(self) -> None:
        pass


def open_reader(files: Sequence[Path], columns: Columns, bundle_info: BundleInfo) -> NpyReader:
    """Raises CallError unless each file is such an array, whole, of the bundle's width."""
    stored = [_stored(path) for path in files]
    for path, one in zip(files, stored, strict=True):
        _expect_input(path, one.dtype, columns, bundle_info.hidden_size)
    names = stored[0].dtype.names or ()
    integral = all(_is_integral(one.dtype, columns.id) for one in stored)
    return NpyReader(
        files=tuple(files),
        stored=stored,
        columns=columns,
        target_shape=target_shape_of(names, columns.target, columns.targets),
        id_kind="int64" if integral else "string",
        total=sum(one.rows for one in stored),
    )


def _is_integral(dtype: np.dtype[Any], id: str) -> bool:
    """Whether ids of such rows are integers of 64 bits, if there are any."""
    return id not in (dtype.names or ()) or np.can_cast(dtype[id], np.int64)


def detect_columns(path: Path, columns: Columns) -> Columns:
    """`custom_id` for the id, if there is a field of that name."""
    return id_fallback_column(columns, _stored(path).dtype.names or ())


def _stored(path: Path) -> Stored:
    with path.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
                version, np.lib.format.read_array_header_2_0
            )
            shape, fortran, dtype = read(file)
        except ValueError as error:
            raise CallError(f"{path}: expected NPY, got: {str(error).splitlines()[0]}") from None
        offset = file.tell()
    if dtype.hasobject or fortran or len(shape) != (1 if dtype.names else 2):
        raise CallError(
            f"{path}: expected [rows, hidden_size] numbers or [rows] of fields, in C order, "
            f"got {list(shape)} of {dtype}{', in Fortran order' if fortran else ''}"
        )
    row = dtype if dtype.names else np.dtype((dtype, shape[1:]))
    size, wanted = path.stat().st_size, offset + shape[0] * row.itemsize
    if size < wanted:
        raise CallError(f"{path}: expected {wanted} bytes, as its header says, got {size}")
    return Stored(offset, shape[0], row)


def _expect_input(path: Path, dtype: np.dtype[Any], columns: Columns, width: int) -> None:
    name = (columns.input or ("input",))[0]
    if dtype.names and name not in dtype.names:
        raise CallError(f"{path}: expected a field {name}, got {', '.join(dtype.names)}")
    field = dtype[name] if dtype.names else dtype
    for other in (columns.id, columns.target, columns.targets, columns.sequence):
        if other in (dtype.names or ()) and dtype[other].base.kind not in "iuU":
            raise CallError(f"{path}: {other}: expected integers or text, got {dtype[other].base}")
    if field.shape != (width,) or field.base.kind not in "fiu":
        raise CallError(
            f"{path}: input: expected {width} numbers in a row, "
            f"got {list(field.shape)} of {field.base}"
        )


def _rows(
    hidden: Float32,
    sums: Float32,
    fields: Mapping[str, Array],
    columns: Columns,
    first_line: int,
    requirements: RowRequirements,
) -> RowBatch:
    row_errors: dict[int, RowError] = {}
    expect_finite(hidden, row_errors, sums)
    count = len(hidden)
    target, counts, listed, oov = _targets(fields, count, columns, row_errors, requirements)
    return RowBatch(
        lines=range(first_line, first_line + count),
        ids=_names(fields, count, columns.id),
        hidden=hidden,
        target=target,
        counts=counts,
        listed=listed,
        sequences=_names(fields, count, columns.sequence),
        oov=oov,
        row_errors=row_errors,
    )


def _names(fields: Mapping[str, Array], count: int, name: str) -> Sequence[RowId]:
    """The values of a field of ids or sequences, all None where there is no such field."""
    if name not in fields:
        return [None] * count
    if np.can_cast(fields[name].dtype, np.int64):
        return IntegerIds(fields[name].astype(np.int64))
    found: list[RowId] = fields[name].tolist()
    return found


def _targets(
    fields: Mapping[str, Array],
    count: int,
    columns: Columns,
    row_errors: dict[int, RowError],
    requirements: RowRequirements,
) -> tuple[Int64, Int64, Bool, frozenset[int]]:
    """(targets of all rows, how many each has, which rows gave a list, out of vocabulary)."""
    one = fields.get(columns.target)
    listed = np.full(count, one is None and columns.targets in fields)
    if one is not None and one.dtype.kind in "iu":
        numbers, present = one.astype(np.int64), np.ones(count, dtype=np.bool_)
        return *resolve_numbers(numbers, present, row_errors, requirements), listed, frozenset()
    entries: list[Sequence[TargetOrLabel] | None] = [None] * count
    if one is not None:
        entries = [(target,) for target in one.tolist()]
    elif columns.targets in fields:
        entries = fields[columns.targets].tolist()
    target, counts, oov = resolve(entries, listed, row_errors, requirements)
    return target, counts, listed, oov


# --- out ----------------------------------------------------------------------------------------


def encode(results: RowResults, record_schema: RecordSchema) -> bytes:
    """The rows' bytes, without a header."""
    dtype = _dtype(record_schema)
    rows = np.zeros(len(results), dtype=dtype)
    for name in dtype.names or ():
        rows[name] = _MISSING[dtype[name].base.kind]
    for name in results.columns.keys() & set(dtype.names or ()):
        _fill(rows, name, results.scored, results.columns[name])
    return rows.tobytes()


def assemble(shards: Iterable[Path], to: BinaryIO, record_schema: RecordSchema) -> None:
    """A header, and the shards one after another; one field alone is a plain array."""
    paths = list(shards)
    dtype = _dtype(record_schema)
    count = sum(path.stat().st_size for path in paths) // dtype.itemsize
    alone = dtype[0] if len(dtype.names or ()) == 1 else dtype
    shape = (count, *alone.shape)
    header = {"descr": np.lib.format.dtype_to_descr(alone.base), "fortran_order": False}
    np.lib.format.write_array_header_1_0(to, {**header, "shape": shape})
    for path in paths:
        with path.open("rb") as shard:
            while part := shard.read(2**20):
                to.write(part)


def _fill(rows: Array, name: str, scored: Array, column: Column) -> None:
    if isinstance(column, RaggedColumn):
        width = rows.dtype[name].shape[0]
        inside = np.arange(width) < column.counts[:, None]
        matrix = np.full((len(scored), width), _MISSING[rows.dtype[name].base.kind])
        matrix[inside] = column.values
        rows[name][scored] = matrix
    else:
        rows[name][scored] = column


def _dtype(record_schema: RecordSchema) -> np.dtype[Any]:
    """A row of the output; text has no place in it."""
    kept = [field for field in record_schema.fields if field.kind != "string"]
    return np.dtype([_described(field, record_schema.width) for field in kept])


def _described(field: RecordField, width: int) -> tuple[Any, ...]:
    return (field.name, field.kind, (width,)) if field.listed else (field.name, field.kind)
