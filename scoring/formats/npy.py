"""NPY: a matrix of hidden states, or a structured array with a row's fields; for input and output.

An array has no room for text. A failed row's error goes into the checkpoint, and from there into a
file beside the output; the row's values are NaN, and its targets -1.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hsoftmax.models.arrays import Array, BoolArray, Float32, Float64, Int64
from hsoftmax.models.npy_header import MAX_NPY_HEADER_BYTES, NpyError, read_npy_header
from hsoftmax.scoring.bundle_info import BundleInfo
from hsoftmax.scoring.errors import CallError, RowError, ScoringError
from hsoftmax.scoring.requirements import RowId, RowRequirements, TargetOrLabel
from hsoftmax.scoring.results import Column, RaggedColumn, RowResults
from hsoftmax.scoring.row_batch import IntegerIds, RowBatch, expect_finite, row_sums
from hsoftmax.scoring.row_targets import resolve_target_column, resolve_targets
from hsoftmax.scoring.task import RecordField, TargetShape, ValueKind

from .columns import Columns, id_fallback_column
from .reader import Position, RawBatch, skip_rows, target_shape_of
from .record_schema import RecordSchema

_ID_BATCH_ROWS = 4096
_READ_BYTES = 2**19  # they stay in a core's cache until they have been converted
_MAX_ROW_BYTES = 2**31 - 1  # NumPy has no larger type of a row
_LAST_CODE_POINT, _SURROGATES = 0x10FFFF, (0xD800, 0xDFFF)
_MISSING = {"f": np.nan, "i": -1, "b": False}


# --- input --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StoredArray:
    """The array of one file: the offset of its bytes, its rows, and the type of a row.

    Attributes:
        by_column: True if the numbers of a column lie together: Fortran order
    """

    offset: int
    rows: int
    dtype: np.dtype[Any]
    by_column: bool = False


@dataclass
class NpyReader:
    """Reads arrays with plain reads: mapped pages would count as this process's memory.

    `parse` does the reading, so that as many threads read as parse.
    """

    states_rows = True

    files: tuple[Path, ...]
    stored: Sequence[StoredArray]
    columns: Columns
    target_shape: TargetShape
    id_kind: ValueKind
    total: int | None

    def begin(self) -> Position:
        return Position(0, 0, 1)

    def read(self, position: Position, count: int) -> RawBatch | None:
        """Returns a batch of positions only; `parse` reads the rows."""
        while position.offset >= self.stored[position.file].rows:
            if position.file + 1 == len(self.files):
                return None
            position = Position(position.file + 1, 0, 1)
        count = min(count, self.stored[position.file].rows - position.offset)
        end = Position(position.file, position.offset + count, position.line + count)
        return RawBatch(position, end, count, None)

    def skip(self, position: Position, count: int) -> tuple[Position, int]:
        return skip_rows(position, count, [array.rows for array in self.stored])

    def parse(self, raw_batch: RawBatch, requirements: RowRequirements) -> RowBatch:
        hidden = np.empty((raw_batch.rows, requirements.bundle_info.hidden_size), dtype=np.float32)
        sums = np.empty(raw_batch.rows, dtype=np.float32)
        fields = self._empty_fields(raw_batch.start.file, raw_batch.rows)
        for at, part in self._parts(raw_batch):
            numbers = part[(self.columns.input or ("input",))[0]] if part.dtype.names else part
            with np.errstate(over="ignore", invalid="ignore"):
                hidden[at] = numbers
            sums[at] = row_sums(hidden[at])
            for name, field in fields.items():
                field[at] = part[name]
        return _row_batch(hidden, sums, fields, self.columns, raw_batch.start.line, requirements)

    def ids(self) -> Iterator[Sequence[RowId]]:
        position = self.begin()
        while (raw_batch := self.read(position, _ID_BATCH_ROWS)) is not None:
            position = raw_batch.end
            if self.columns.id not in (self.stored[raw_batch.start.file].dtype.names or ()):
                yield [None] * raw_batch.rows
                continue
            for _, part in self._parts(raw_batch):
                yield _to_list(part[self.columns.id])

    def _empty_fields(self, file: int, rows: int) -> dict[str, Array]:
        """Returns an empty array for each field of a row except its hidden state."""
        dtype, columns = self.stored[file].dtype, self.columns
        known = (columns.id, columns.target, columns.targets, columns.sequence)
        return {name: np.empty(rows, dtype[name]) for name in dtype.names or () if name in known}

    def _parts(self, raw_batch: RawBatch) -> Iterator[tuple[slice, Array]]:
        """Yields (place in the batch, a few of its rows); the next rows overwrite the array."""
        path, stored = self.files[raw_batch.start.file], self.stored[raw_batch.start.file]
        part_rows = max(1, _READ_BYTES // stored.dtype.itemsize)
        buffer = np.empty(min(raw_batch.rows, part_rows), stored.dtype)
        with path.open("rb") as file:
            file.seek(stored.offset + raw_batch.start.offset * stored.dtype.itemsize)
            for start in range(0, raw_batch.rows, part_rows):
                part = buffer[: raw_batch.rows - start]
                if stored.by_column:
                    is_whole = _read_columns(file, stored, raw_batch.start.offset + start, part)
                else:
                    is_whole = file.readinto(part.view(np.uint8).data) == part.nbytes
                if not is_whole:
                    raise ScoringError(f"{path}: expected as many rows as when it was opened")
                yield slice(start, start + len(part)), part

    def fraction(self, position: Position) -> float:
        before = sum(array.rows for array in self.stored[: position.file]) + position.offset
        return before / max(1, self.total or 0)

    def close(self) -> None:
        pass


def _read_columns(file: BinaryIO, stored: StoredArray, first: int, part: Array) -> bool:
    """Reads rows of an array in Fortran order into `part`. Returns False if the file is short."""
    number = stored.dtype.base
    for column in range(part.shape[1]):
        file.seek(stored.offset + (column * stored.rows + first) * number.itemsize)
        content = file.read(len(part) * number.itemsize)
        if len(content) < len(part) * number.itemsize:
            return False
        part[:, column] = np.frombuffer(content, number)
    return True


def open_reader(files: Sequence[Path], columns: Columns, bundle_info: BundleInfo) -> NpyReader:
    """Opens NPY files. Raises CallError unless each holds a whole array of the bundle's width."""
    stored = [_read_header(path) for path in files]
    for path, array in zip(files, stored, strict=True):
        _expect_fields(path, array.dtype, columns, bundle_info.hidden_size)
    names = stored[0].dtype.names or ()
    integral = all(_has_integral_ids(array.dtype, columns.id) for array in stored)
    return NpyReader(
        files=tuple(files),
        stored=stored,
        columns=columns,
        target_shape=target_shape_of(names, columns.target, columns.targets),
        id_kind="int64" if integral else "string",
        total=sum(array.rows for array in stored),
    )


def _has_integral_ids(dtype: np.dtype[Any], id: str) -> bool:
    """True if the ids are integers within int64, or if there are no ids."""
    return id not in (dtype.names or ()) or np.can_cast(dtype[id], np.int64)


def detect_columns(path: Path, columns: Columns) -> Columns:
    """Returns the columns with `custom_id` for the id, if only that field is in the array."""
    return id_fallback_column(columns, _read_header(path).dtype.names or ())


def _read_header(path: Path) -> StoredArray:
    """Reads the header of a file. Raises CallError unless it describes rows, and all are there."""
    with path.open("rb") as file:
        try:
            header = read_npy_header(file.read(MAX_NPY_HEADER_BYTES))
        except NpyError as error:
            raise CallError(f"{path}: {error}") from None
    shape, fortran, dtype = header.shape, header.by_column, header.dtype
    is_plain = not dtype.hasobject and len(shape) == (1 if dtype.names else 2)
    if not is_plain or (not dtype.names and shape[1] * dtype.itemsize > _MAX_ROW_BYTES):
        raise CallError(
            f"{path}: expected [rows, hidden_size] numbers or [rows] of fields, "
            f"got {list(shape)} of {dtype}"
        )
    row = dtype if dtype.names else np.dtype((dtype, shape[1:]))
    size, min_size = path.stat().st_size, header.offset + shape[0] * row.itemsize
    if size < min_size:
        raise CallError(f"{path}: expected {min_size} bytes, as its header says, got {size}")
    return StoredArray(header.offset, shape[0], row, by_column=fortran and not dtype.names)


def _expect_fields(path: Path, dtype: np.dtype[Any], columns: Columns, width: int) -> None:
    """Raises CallError unless the fields of a row have usable types."""
    name = (columns.input or ("input",))[0]
    if dtype.names and name not in dtype.names:
        raise CallError(f"{path}: expected a field {name}, got {', '.join(dtype.names)}")
    field = dtype[name] if dtype.names else dtype
    targets = (columns.target, columns.targets)
    for other in (columns.id, *targets, columns.sequence):
        kinds = "iufU" if other in targets else "iuU"
        if other in (dtype.names or ()) and dtype[other].base.kind not in kinds:
            raise CallError(f"{path}: {other}: expected integers or text, got {dtype[other].base}")
        axes = 1 if other == columns.targets else 0
        if other in (dtype.names or ()) and len(dtype[other].shape) != axes:
            raise CallError(f"{path}: {other}: expected {axes} axes, got {dtype[other].shape}")
    if field.shape != (width,) or field.base.kind not in "fiu":
        raise CallError(
            f"{path}: input: expected {width} numbers in a row, "
            f"got {list(field.shape)} of {field.base}"
        )


def _row_batch(
    hidden: Float32,
    sums: Float32,
    fields: Mapping[str, Array],
    columns: Columns,
    first_line: int,
    requirements: RowRequirements,
) -> RowBatch:
    row_errors = _text_errors(fields)
    expect_finite(hidden, row_errors, sums)
    count = len(hidden)
    target, counts, listed, oov = _targets(fields, count, columns, row_errors, requirements)
    return RowBatch(
        lines=range(first_line, first_line + count),
        ids=_ids(fields, count, columns.id),
        hidden=hidden,
        target=target,
        counts=counts,
        listed=listed,
        sequences=_ids(fields, count, columns.sequence),
        oov=oov,
        row_errors=row_errors,
    )


def _ids(fields: Mapping[str, Array], count: int, name: str) -> Sequence[RowId]:
    """Returns the values of a field of ids or sequences, all None if there is no such field."""
    if name not in fields:
        return [None] * count
    if np.can_cast(fields[name].dtype, np.int64):
        return IntegerIds(fields[name].astype(np.int64))
    return _to_list(fields[name])


def _text_errors(fields: Mapping[str, Array]) -> dict[int, RowError]:
    """Returns an error for each row with text that is none."""
    return {
        int(i): RowError("invalid_query", f"{name}: expected text, got a code point that is none")
        for name, field in fields.items()
        for i in np.flatnonzero(_is_not_text(field))
    }


def _to_list(field: Array) -> list[Any]:
    """Returns the values of a field, None where they are not text."""
    bad = _is_not_text(field)
    if not bad.any():
        values: list[Any] = field.tolist()
        return values
    kept = field.copy()
    kept[bad] = ""
    return [None if wrong else value for wrong, value in zip(bad, kept.tolist(), strict=True)]


def _is_not_text(field: Array) -> BoolArray:
    """Returns True for each row with a code point that Python or UTF-8 does not have."""
    if field.dtype.kind != "U" or not field.size or not field.dtype.itemsize:
        return np.zeros(len(field), dtype=np.bool_)
    native = np.ascontiguousarray(field, field.dtype.newbyteorder("="))
    codes = native.view(np.uint32).reshape(len(field), -1)
    is_surrogate = (codes >= _SURROGATES[0]) & (codes <= _SURROGATES[1])
    is_wrong: BoolArray = np.any((codes > _LAST_CODE_POINT) | is_surrogate, axis=1)
    return is_wrong


def _targets(
    fields: Mapping[str, Array],
    count: int,
    columns: Columns,
    row_errors: dict[int, RowError],
    requirements: RowRequirements,
) -> tuple[Int64, Int64, BoolArray, frozenset[int]]:
    """Returns (targets of all rows, the number of each row, listed, rows out of vocabulary)."""
    target = fields.get(columns.target)
    listed = np.full(count, target is None and columns.targets in fields)
    if target is not None and target.dtype.kind in "iuf":
        numbers: Int64 | Float64 = (
            target.astype(np.float64) if target.dtype.kind == "f" else target.astype(np.int64)
        )
        present = np.ones(count, dtype=np.bool_)
        targets, counts = resolve_target_column(numbers, present, row_errors, requirements)
        return targets, counts, listed, frozenset()
    entries: list[Sequence[TargetOrLabel] | None] = [None] * count
    if target is not None:
        entries = [(label,) for label in _to_list(target)]
    elif columns.targets in fields:
        entries = _to_list(fields[columns.targets])
    targets, counts, oov = resolve_targets(entries, listed, row_errors, requirements)
    return targets, counts, listed, oov


# --- output -------------------------------------------------------------------------------------


def encode(results: RowResults, schema: RecordSchema) -> bytes:
    """Returns the bytes of the rows, without a header."""
    dtype = _row_dtype(schema)
    rows = np.zeros(len(results), dtype=dtype)
    for name in dtype.names or ():
        rows[name] = _MISSING[dtype[name].base.kind]
    for name in results.columns.keys() & set(dtype.names or ()):
        _fill(rows, name, results.scored, results.columns[name])
    return rows.tobytes()


def assemble(shards: Iterable[Path], to: BinaryIO, schema: RecordSchema) -> None:
    """Writes a header, then the shards one after another.

    Records of a single field become a plain array.
    """
    paths = list(shards)
    dtype = _row_dtype(schema)
    count = sum(path.stat().st_size for path in paths) // dtype.itemsize
    row = dtype[0] if len(dtype.names or ()) == 1 else dtype
    shape = (count, *row.shape)
    header = {"descr": np.lib.format.dtype_to_descr(row.base), "fortran_order": False}
    np.lib.format.write_array_header_1_0(to, {**header, "shape": shape})
    for path in paths:
        with path.open("rb") as shard:
            while part := shard.read(2**20):
                to.write(part)


def _fill(rows: Array, name: str, scored: Array, column: Column) -> None:
    """Writes a column into a field of the scored rows."""
    if isinstance(column, RaggedColumn):
        width = rows.dtype[name].shape[0]
        inside = np.arange(width) < column.counts[:, None]
        matrix = np.full((len(scored), width), _MISSING[rows.dtype[name].base.kind])
        matrix[inside] = column.values
        rows[name][scored] = matrix
    else:
        rows[name][scored] = column


def _row_dtype(schema: RecordSchema) -> np.dtype[Any]:
    """Returns the type of a row of the output; fields of text are left out."""
    kept = [field for field in schema.fields if field.kind != "string"]
    return np.dtype([_field_dtype(field, schema.width) for field in kept])


def _field_dtype(field: RecordField, width: int) -> tuple[Any, ...]:
    return (field.name, field.kind, (width,)) if field.listed else (field.name, field.kind)
