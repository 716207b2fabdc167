"""A batch of parsed rows: one float32 matrix, the targets beside it, and the errors by row.

A row with an error keeps its place: its hidden state is zeros and it has no targets. Everything
after parsing therefore works by position, and one row's error cannot affect another row.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast, overload

import numpy as np

from hsoftmax.featurizers import TextInput
from hsoftmax.models.arrays import BoolArray, Float32, Int64

from .bundle_info import BundleInfo, NamedRow
from .errors import RowError
from .requirements import RowId, RowRequirements, TargetOrLabel
from .row_targets import resolve_targets
from .text_rows import fill_named, fill_texts, is_text

ValueOf = Callable[[int, int], object]


@dataclass(frozen=True, slots=True, eq=False)
class IntegerIds(Sequence[int]):
    """Ids in an array, which become Python integers only when they are read.

    Columnar formats write the array as it is.
    """

    array: Int64

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, index: int) -> int: ...

    @overload
    def __getitem__(self, index: slice) -> list[int]: ...

    def __getitem__(self, index: int | slice) -> int | list[int]:
        ids: int | list[int] = self.array[index].tolist()
        return ids

    def __iter__(self) -> Iterator[int]:
        ids: list[int] = self.array.tolist()
        return iter(ids)


@dataclass(frozen=True, slots=True)
class RowBatch:
    """A batch of rows in input order.

    Attributes:
        lines: each row's line in its file, from 1
        hidden: [rows, hidden_size]
        target, counts: the targets of all rows one after another, and the number of each row
        listed: [rows] True if the row gave a list of targets; its result is then a list
        sequences: the sequence of each row, by which perplexity groups them
        oov: positions of rows whose label is not in the bundle, if the task excludes those
        row_errors: errors by position in the batch
    """

    lines: Sequence[int]
    ids: Sequence[RowId]
    hidden: Float32
    target: Int64
    counts: Int64
    listed: BoolArray
    sequences: Sequence[RowId]
    oov: frozenset[int]
    row_errors: Mapping[int, RowError]

    def __len__(self) -> int:
        return len(self.hidden)


@dataclass(slots=True)
class ParsedRow:
    """One row of a text format, before its numbers, its text or its words are checked."""

    id: RowId
    input: Sequence[float] | TextInput | NamedRow
    targets: Sequence[TargetOrLabel] | None = None
    listed: bool = False
    sequence: RowId = None
    row_error: RowError | None = None


def insert_failed_rows(
    rows: RowBatch, positions: Int64, first_line: int, count: int, row_error: RowError
) -> RowBatch:
    """Returns a batch of `count` rows with these rows at `positions`, and the error elsewhere."""
    hidden = np.zeros((count, rows.hidden.shape[1]), dtype=np.float32)
    counts, listed = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.bool_)
    ids: list[RowId] = [None] * count
    sequences: list[RowId] = [None] * count
    hidden[positions], counts[positions], listed[positions] = rows.hidden, rows.counts, rows.listed
    for place, id, sequence in zip(positions.tolist(), rows.ids, rows.sequences, strict=True):
        ids[place], sequences[place] = id, sequence
    moved = {int(positions[i]): error for i, error in rows.row_errors.items()}
    failed = dict.fromkeys(set(range(count)) - set(positions.tolist()), row_error)
    return RowBatch(
        lines=range(first_line, first_line + count),
        ids=ids,
        hidden=hidden,
        target=rows.target,
        counts=counts,
        listed=listed,
        sequences=sequences,
        oov=frozenset(int(positions[i]) for i in rows.oov),
        row_errors={**moved, **failed},
    )


def fail_rows(rows: RowBatch, row_errors: Mapping[int, RowError]) -> RowBatch:
    """Returns the rows with these errors too, by position; a row keeps its first error."""
    if not row_errors:
        return rows
    kept = np.ones(len(rows), dtype=np.bool_)
    kept[list(row_errors)] = False
    return replace(
        rows,
        hidden=np.where(kept[:, None], rows.hidden, np.float32(0)),
        target=rows.target[np.repeat(kept, rows.counts)],
        counts=np.where(kept, rows.counts, 0),
        oov=rows.oov - row_errors.keys(),
        row_errors={**row_errors, **rows.row_errors},
    )


def failed_row(row_error: RowError, id: RowId = None) -> ParsedRow:
    """Returns a row that could not be parsed, with its id if that could be read."""
    return ParsedRow(id, (), row_error=row_error)


def build_row_batch(
    rows: Sequence[ParsedRow], first_line: int, requirements: RowRequirements
) -> RowBatch:
    """Checks the parsed rows of a text format and builds their batch."""
    row_errors = {i: row.row_error for i, row in enumerate(rows) if row.row_error is not None}
    hidden = _read_inputs(rows, row_errors, requirements.bundle_info)
    entries = [None if i in row_errors else row.targets for i, row in enumerate(rows)]
    listed = np.fromiter((row.listed for row in rows), dtype=np.bool_, count=len(rows))
    target, counts, oov = resolve_targets(entries, listed, row_errors, requirements)
    return RowBatch(
        lines=range(first_line, first_line + len(rows)),
        ids=[row.id for row in rows],
        hidden=hidden,
        target=target,
        counts=counts,
        listed=listed,
        sequences=[row.sequence for row in rows],
        oov=oov,
        row_errors=row_errors,
    )


def _read_inputs(
    rows: Sequence[ParsedRow], row_errors: dict[int, RowError], bundle_info: BundleInfo
) -> Float32:
    """Returns [rows, hidden_size]; a wrong row gets an error."""
    width = bundle_info.hidden_size
    well_formed: dict[int, Sequence[float]] = {}
    texts: dict[int, TextInput] = {}
    named: dict[int, NamedRow] = {}
    for i, row in enumerate(rows):
        if i in row_errors:
            continue
        if isinstance(row.input, dict):
            named[i] = row.input
        elif is_text(row.input):
            texts[i] = row.input
        elif len(row.input) == width:
            well_formed[i] = cast(Sequence[float], row.input)
        else:
            row_errors[i] = wrong_width(width, len(row.input))
    hidden = np.zeros((len(rows), width), dtype=np.float32)
    if well_formed:
        numbers = np.array(list(well_formed.values()), dtype=np.float64)
        with np.errstate(over="ignore"):
            hidden[list(well_formed)] = numbers.astype(np.float32)
    expect_finite(hidden, row_errors, value_of=lambda i, position: well_formed[i][position])
    fill_named(hidden, named, row_errors, bundle_info)
    fill_texts(hidden, texts, row_errors, bundle_info)
    return hidden


def wrong_width(expected: int, got: int) -> RowError:
    return RowError("invalid_query", f"input: expected {expected} numbers, got {got}")


def row_sums(hidden: Float32) -> Float32:
    """Returns the sum of each row, by which `expect_finite` finds rows to look at.

    A finite sum proves that all numbers of the row are finite. An infinite sum does not prove the
    opposite.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        sums: Float32 = np.einsum("ij->i", hidden)  # one pass, no mask; much faster than `sum`
    return sums


def expect_finite(
    hidden: Float32,
    row_errors: dict[int, RowError],
    sums: Float32 | None = None,
    value_of: ValueOf | None = None,
) -> None:
    """Gives rows with NaN or infinity an error, and sets them to zeros, in place.

    `value_of` returns the value at a row and a position of the input, None for a null: as float32
    it may have become an infinity, or a NaN.
    """
    suspects = np.flatnonzero(~np.isfinite(row_sums(hidden) if sums is None else sums))
    for i in map(int, suspects):
        not_finite = np.flatnonzero(~np.isfinite(hidden[i]))
        if not len(not_finite):
            continue  # all numbers are finite, only their sum is not
        position = int(not_finite[0])
        got = hidden[i, position] if value_of is None else value_of(i, position)
        row_errors[i] = RowError(
            "invalid_query",
            f"input position {position}: expected a finite number within float32, "
            f"got {'null' if got is None else got}",
        )
        hidden[i] = 0
