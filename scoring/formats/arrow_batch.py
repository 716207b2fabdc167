"""Turns a batch of Arrow columns into checked rows.

It works on whole columns, and goes row by row only where it must: for labels, lists and errors.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pyarrow as pa

from hsoftmax.featurizers import TextInput
from hsoftmax.models.arrays import BoolArray, Float32, Float64, Int64
from hsoftmax.scoring.bundle_info import BundleInfo
from hsoftmax.scoring.errors import RowError
from hsoftmax.scoring.requirements import RowId, RowRequirements, TargetOrLabel
from hsoftmax.scoring.row_batch import (
    IntegerIds,
    RowBatch,
    expect_finite,
    insert_failed_rows,
    wrong_width,
)
from hsoftmax.scoring.row_targets import resolve_target_column, resolve_targets
from hsoftmax.scoring.text_rows import fill_texts

from .arrow_sizes import MAX_ROW_BYTES, row_sizes
from .arrow_types import Arrow, plain, plain_batch
from .columns import Columns

_NOT_VALID = RowError(
    "invalid_query",
    f"expected valid values, such as text in UTF-8, of at most {MAX_ROW_BYTES} bytes, got others",
)


def parse_batch(
    batch: Arrow,
    columns: Columns,
    inputs: Sequence[str],
    first_line: int,
    requirements: RowRequirements,
) -> RowBatch:
    """Returns the rows of a record batch; `inputs` are the names of its input columns.

    A row with values that Arrow does not allow, such as text that is not UTF-8, gets an error.
    """
    positions = valid_rows(batch)
    if positions is None:
        return _parse_valid(batch, columns, inputs, first_line, requirements)
    valid = batch.take(pa.array(positions))
    rows = _parse_valid(valid, columns, inputs, first_line, requirements)
    return insert_failed_rows(rows, positions, first_line, batch.num_rows, _NOT_VALID)


def valid_rows(batch: Arrow) -> Int64 | None:
    """Returns the positions of the rows with valid values, None if all are: the usual case."""
    fits = row_sizes(batch) <= MAX_ROW_BYTES
    if fits.all() and _is_valid(batch):
        return None
    rows = (int(i) for i in np.flatnonzero(fits) if _is_valid(batch.slice(int(i), 1)))
    return np.fromiter(rows, dtype=np.int64)


def expect_structure(batch: Arrow) -> None:
    """Raises ArrowInvalid if any offset or length of the batch leads outside of its buffers.

    The text of columns of strings is not checked: text that is not UTF-8 fails its own row.
    """
    for column in batch.columns:
        if pa.types.is_string(column.type):
            column = column.view(pa.binary())
        elif pa.types.is_large_string(column.type):
            column = column.view(pa.large_binary())
        column.validate(full=True)


def _is_valid(batch: Arrow) -> bool:
    try:
        batch.validate(full=True)
    except pa.ArrowException:
        return False
    return True


def _parse_valid(
    batch: Arrow,
    columns: Columns,
    inputs: Sequence[str],
    first_line: int,
    requirements: RowRequirements,
) -> RowBatch:
    count, width = batch.num_rows, requirements.bundle_info.hidden_size
    row_errors: dict[int, RowError] = {}
    repeated = _repeated_texts(batch, columns, inputs)
    if repeated is not None:
        batch = batch.drop_columns(list(inputs))
    batch = plain_batch(batch, number_columns(columns, inputs))
    if repeated is not None:
        hidden = _hidden_of_repeated(repeated, requirements.bundle_info, row_errors)
    elif len(inputs) == 1 and is_text_type(batch.column(inputs[0]).type):
        column = batch.column(inputs[0])
        hidden = _hidden_of_texts(column, requirements.bundle_info, row_errors)
    elif len(inputs) == 1 and is_list(batch.column(inputs[0]).type):
        hidden = _hidden_of_lists(batch.column(inputs[0]), width, row_errors)
    else:
        hidden = np.column_stack([_float32(batch.column(name)) for name in inputs])
    expect_finite(hidden, row_errors, value_of=partial(_value, batch, inputs))
    target, counts, listed, oov = _targets(batch, columns, row_errors, requirements)
    return RowBatch(
        lines=range(first_line, first_line + count),
        ids=id_column(batch, columns.id),
        hidden=hidden,
        target=target,
        counts=counts,
        listed=listed,
        sequences=id_column(batch, columns.sequence),
        oov=oov,
        row_errors=row_errors,
    )


def copied_sizes(batch: Arrow, columns: Columns, inputs: Sequence[str]) -> Float64:
    """Returns the bytes that `parse_batch` copies for each row of a valid batch.

    The texts of a dictionary are read where they are, each once, so a row has none of them.
    """
    if _repeated_texts(batch, columns, inputs) is not None:
        batch = batch.drop_columns(list(inputs))
    return row_sizes(batch)


def number_columns(columns: Columns, inputs: Sequence[str]) -> frozenset[str]:
    """Returns the names of the columns whose decimals are numbers."""
    return frozenset({*inputs, columns.target, columns.targets})


def is_list(kind: Arrow) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def is_text_type(kind: Arrow) -> bool:
    """Returns True for plain types of texts and of lists of words."""
    if is_list(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _repeated_texts(batch: Arrow, columns: Columns, inputs: Sequence[str]) -> Arrow | None:
    """Returns the input if it is a column of texts with a dictionary, else None.

    One text of the dictionary may stand in any number of rows, so it is never expanded.
    """
    others = (columns.id, columns.target, columns.targets, columns.sequence)
    if len(inputs) != 1 or inputs[0] in others:
        return None
    column = batch.column(inputs[0])
    kind = column.type
    return column if pa.types.is_dictionary(kind) and is_text_type(kind.value_type) else None


def _hidden_of_repeated(
    column: Arrow, bundle_info: BundleInfo, row_errors: dict[int, RowError]
) -> Float32:
    """Returns [rows, width]. Each text of the dictionary that a row has is read once."""
    numbers = column.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    distinct, place = np.unique(numbers, return_inverse=True)
    values = column.dictionary.take(pa.array(np.maximum(distinct, 0)))
    if len(distinct) and distinct[0] < 0:  # a null, which is no text
        values = pa.concat_arrays([pa.nulls(1, values.type), values.slice(1)])
    errors: dict[int, RowError] = {}
    hidden = _hidden_of_texts(values, bundle_info, errors)
    for i, number in enumerate(place.tolist()):
        if number in errors:
            row_errors[i] = errors[number]
    of_rows: Float32 = hidden[place]
    return of_rows


def _hidden_of_texts(
    column: Arrow, bundle_info: BundleInfo, row_errors: dict[int, RowError]
) -> Float32:
    """Returns [rows, width]; nulls, lists with a null and wrong texts get an error."""
    texts: dict[int, TextInput] = {}
    for i, value in enumerate(column.to_pylist()):
        if value is None or (isinstance(value, list) and None in value):
            row_errors[i] = RowError("invalid_query", "input: expected a value, got none")
        else:
            texts[i] = value
    hidden = np.zeros((len(column), bundle_info.hidden_size), dtype=np.float32)
    fill_texts(hidden, texts, row_errors, bundle_info)
    return hidden


def _hidden_of_lists(column: Arrow, width: int, row_errors: dict[int, RowError]) -> Float32:
    """Returns [rows, width]; nulls and lists of another length get an error."""
    count = len(column)
    if pa.types.is_fixed_size_list(column.type):
        starts = (np.arange(count) + column.offset) * width
        widths = np.full(count, width)
    else:
        offsets = column.offsets.to_numpy()
        starts, widths = offsets[:-1], np.diff(offsets)
    present = column.is_valid().to_numpy(zero_copy_only=False)
    well_formed = present & (widths == width)
    for i in map(int, np.flatnonzero(~well_formed)):
        row_errors[i] = wrong_width(width, int(widths[i])) if present[i] else RowError(
            "invalid_query", "input: expected a value, got none")  # fmt: skip
    if well_formed.all() and count:
        flat = _float32(column.values.slice(int(starts[0]), count * width))
        return flat.reshape(count, width)
    hidden = np.zeros((count, width), dtype=np.float32)
    if well_formed.any():
        first, last = int(starts[well_formed].min()), int(starts[well_formed].max()) + width
        flat = _float32(column.values.slice(first, last - first))
        hidden[well_formed] = flat[(starts[well_formed] - first)[:, None] + np.arange(width)]
    return hidden


def _float32(values: Arrow) -> Float32:
    """Returns a copy as float32. A null becomes NaN, which `expect_finite` then finds."""
    array = values.to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.array(array, dtype=np.float32)


def _value(batch: Arrow, inputs: Sequence[str], row: int, position: int) -> object:
    """Returns a number of the input as the file has it, None for a null."""
    if len(inputs) > 1:
        return batch.column(inputs[position])[row].as_py()
    value = batch.column(inputs[0])[row].as_py()
    return value[position] if isinstance(value, list) else value


def _targets(
    batch: Arrow,
    columns: Columns,
    row_errors: dict[int, RowError],
    requirements: RowRequirements,
) -> tuple[Int64, Int64, BoolArray, frozenset[int]]:
    """Returns (targets of all rows, the number of each row, listed, rows out of vocabulary)."""
    names, count = batch.schema.names, batch.num_rows
    has_target = columns.target in names
    listed = np.full(count, not has_target and columns.targets in names)
    if has_target and (numbers := _numbers(batch.column(columns.target))) is not None:
        present = batch.column(columns.target).is_valid().to_numpy(zero_copy_only=False)
        target, counts = resolve_target_column(numbers, present, row_errors, requirements)
        return target, counts, listed, frozenset()
    entries: list[Sequence[TargetOrLabel] | None] = [None] * count
    if has_target:
        labels = batch.column(columns.target).to_pylist()
        entries = [None if label is None else (label,) for label in labels]
    elif columns.targets in names:
        entries = [_target_list(entry) for entry in batch.column(columns.targets).to_pylist()]
    target, counts, oov = resolve_targets(entries, listed, row_errors, requirements)
    return target, counts, listed, oov


def _target_list(entry: list[Arrow] | None) -> list[Arrow] | None:
    """Returns the list of targets, or None if it is null or has a null in it."""
    return None if entry is None or None in entry else entry


def _integers(column: Arrow) -> Int64 | None:
    """Returns the column as int64 with 0 for nulls, or None unless all values are within int64."""
    if not pa.types.is_integer(column.type):
        return None
    try:
        numbers: Int64 = column.fill_null(0).cast(pa.int64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        return None
    return numbers


def _numbers(column: Arrow) -> Int64 | Float64 | None:
    """Returns a column of numbers, with 0 for nulls, or None if it is none within int64."""
    if pa.types.is_floating(column.type):
        numbers: Float64 = column.fill_null(0).to_numpy(zero_copy_only=False).astype(np.float64)
        return numbers
    return _integers(column)


def id_column(batch: Arrow, name: str) -> Sequence[RowId]:
    """Returns the values of a column of ids or sequences, all None if there is no such column.

    Numbers that are no integers, and dates, become the text that Arrow writes for them.
    """
    if name not in batch.schema.names:
        return [None] * batch.num_rows
    positions = valid_rows(batch.select([name]))
    if positions is not None:
        ids_by_position = dict(
            zip(positions.tolist(), id_column(batch.take(pa.array(positions)), name), strict=True)
        )
        return [ids_by_position.get(i) for i in range(batch.num_rows)]
    column = plain(batch.column(name))
    if not column.null_count and (numbers := _integers(column)) is not None:
        return IntegerIds(numbers)
    if becomes_text(column.type):
        column = _as_text(column)
    ids: list[RowId] = column.to_pylist()
    return ids


def becomes_text(kind: Arrow) -> bool:
    """True for the types of ids that are kept as text: floats, decimals, dates and times."""
    types = pa.types
    is_moment = types.is_date(kind) or types.is_time(kind) or types.is_timestamp(kind)
    return bool(types.is_floating(kind) or types.is_decimal(kind) or is_moment)


def _as_text(column: Arrow) -> Arrow:
    """Returns Arrow's text for each value; times of a zone in UTC, as zones may be unknown."""
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        column = column.cast(pa.timestamp(kind.unit, "UTC"))
    return column.cast(pa.string())
