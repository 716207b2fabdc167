"""A batch of Arrow columns as rows, checked: nothing is looked at row by row unless it must be."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from hsoftmax.models.arrays import Float32, Int64
from hsoftmax.scoring.errors import RowError
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
    wrong_width,
)

from .columns import Columns

Arrow = Any  # any of pyarrow's own: it has no types to check against


def parse_batch(
    batch: Arrow,
    columns: Columns,
    inputs: Sequence[str],
    first_line: int,
    requirements: RowRequirements,
) -> RowBatch:
    count, width = batch.num_rows, requirements.bundle_info.hidden_size
    row_errors: dict[int, RowError] = {}
    if len(inputs) == 1 and is_list(batch.column(inputs[0]).type):
        hidden = _from_lists(batch.column(inputs[0]), width, row_errors)
    else:
        hidden = np.column_stack([_numbers(batch.column(name)) for name in inputs])
    expect_finite(hidden, row_errors)
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


def is_list(kind: Arrow) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _from_lists(column: Arrow, width: int, row_errors: dict[int, RowError]) -> Float32:
    """[rows, width]; nulls and lists of another length become flaws."""
    count = len(column)
    if pa.types.is_fixed_size_list(column.type):
        starts = (np.arange(count) + column.offset) * width
        widths = np.full(count, width)
    else:
        offsets = column.offsets.to_numpy()
        starts, widths = offsets[:-1], np.diff(offsets)
    present = column.is_valid().to_numpy(zero_copy_only=False)
    good = present & (widths == width)
    for i in map(int, np.flatnonzero(~good)):
        row_errors[i] = wrong_width(width, int(widths[i])) if present[i] else RowError(
            "invalid_query", "input: expected a value, got none")  # fmt: skip
    if good.all() and count:
        flat = _numbers(column.values.slice(int(starts[0]), count * width))
        return flat.reshape(count, width)
    hidden = np.zeros((count, width), dtype=np.float32)
    if good.any():
        first, last = int(starts[good].min()), int(starts[good].max()) + width
        flat = _numbers(column.values.slice(first, last - first))
        hidden[good] = flat[(starts[good] - first)[:, None] + np.arange(width)]
    return hidden


def _numbers(values: Arrow) -> Float32:
    """As float32 of its own; nulls are NaN, which is found like any other."""
    found = values.to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.array(found, dtype=np.float32)


def _targets(
    batch: Arrow,
    columns: Columns,
    row_errors: dict[int, RowError],
    requirements: RowRequirements,
) -> tuple[Int64, Int64, Bool, frozenset[int]]:
    """(targets of all rows, how many each has, which rows gave a list, out of vocabulary)."""
    names, count = batch.schema.names, batch.num_rows
    one = columns.target in names
    listed = np.full(count, not one and columns.targets in names)
    if one and (numbers := _integers(batch.column(columns.target))) is not None:
        present = batch.column(columns.target).is_valid().to_numpy(zero_copy_only=False)
        return *resolve_numbers(numbers, present, row_errors, requirements), listed, frozenset()
    entries: list[Sequence[TargetOrLabel] | None] = [None] * count
    if one:
        found = batch.column(columns.target).to_pylist()
        entries = [None if target is None else (target,) for target in found]
    elif columns.targets in names:
        entries = [_entry(entry) for entry in batch.column(columns.targets).to_pylist()]
    target, counts, oov = resolve(entries, listed, row_errors, requirements)
    return target, counts, listed, oov


def _entry(entry: list[Arrow] | None) -> list[Arrow] | None:
    """A list with a null in it is no list of targets."""
    return None if entry is None or None in entry else entry


def _integers(column: Arrow) -> Int64 | None:
    """Nulls as 0; None unless all are integers within int64."""
    if not pa.types.is_integer(column.type):
        return None
    try:
        found: Int64 = column.fill_null(0).cast(pa.int64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        return None
    return found


def id_column(batch: Arrow, name: str) -> Sequence[RowId]:
    """The values of a column of ids or sequences, all None where there is no such column."""
    if name not in batch.schema.names:
        return [None] * batch.num_rows
    column = batch.column(name)
    if not column.null_count and (numbers := _integers(column)) is not None:
        return IntegerIds(numbers)
    found: list[RowId] = column.to_pylist()
    return found
