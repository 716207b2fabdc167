"""Rows as read: one float32 matrix, the targets beside it, and what is wrong with which row.

A flawed row keeps its place: its hidden state is zeros and it has no targets, so that everything
after reading goes by position and no row can cost another.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, overload

import numpy as np
from numpy.typing import NDArray

from hsoftmax.models.arrays import Array, Float32, Int64

from .bundle_info import BundleInfo
from .errors import RowError
from .task import OovPolicy, Task, needs_target, reads_target

Bool = NDArray[np.bool_]
RowId = str | int | None
TargetOrLabel = int | str

# "any": one or a list; "maybe": or none; "absent": it would be a mistake; "ignored": no matter
TargetRule = Literal["one", "any", "absent", "ignored"]


@dataclass(frozen=True, slots=True, eq=False)
class IntegerIds(Sequence[int]):
    """Ids that stay an array until one of them is asked for: most formats want no more."""

    array: Int64

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, index: int) -> int: ...

    @overload
    def __getitem__(self, index: slice) -> list[int]: ...

    def __getitem__(self, index: int | slice) -> int | list[int]:
        found: int | list[int] = self.array[index].tolist()
        return found

    def __iter__(self) -> Iterator[int]:
        numbers: list[int] = self.array.tolist()
        return iter(numbers)


@dataclass(frozen=True, slots=True)
class RowBatch:
    """A chunk of rows in their order.

    Attributes:
        lines: of each row in its file, from 1
        hidden: [rows, hidden_size]
        target, counts: the targets of all rows one after another, and how many each row has
        listed: [rows] whether a row gave a list, and so gets one
        sequences: what perplexity groups rows by
        oov: rows whose target is a label that the bundle does not have, where that is no flaw
        flaws: what is wrong, by position in the chunk
    """

    lines: Sequence[int]
    ids: Sequence[RowId]
    hidden: Float32
    target: Int64
    counts: Int64
    listed: Bool
    sequences: Sequence[RowId]
    oov: frozenset[int]
    row_errors: Mapping[int, RowError]

    def __len__(self) -> int:
        return len(self.hidden)


@dataclass(frozen=True, slots=True)
class RowRequirements:
    """What rows are read for."""

    bundle_info: BundleInfo
    targets: TargetRule
    oov: OovPolicy = "error"


@dataclass(slots=True)
class ParsedRow:
    """One row of a text format, before its numbers are checked."""

    id: RowId
    input: Sequence[float]
    targets: Sequence[TargetOrLabel] | None = None
    listed: bool = False
    sequence: RowId = None
    row_error: RowError | None = None


def row_requirements(task: Task, full: bool, bundle_info: BundleInfo) -> RowRequirements:
    """What `task` wants of a row; `full` where it asks for whole distributions."""
    if not reads_target(task):
        return RowRequirements(bundle_info, "ignored")
    if full and not needs_target(task):
        return RowRequirements(bundle_info, "absent")
    if task.name == "perplexity":
        return RowRequirements(bundle_info, "one", task.oov)
    return RowRequirements(bundle_info, "any")


def failed_row(row_error: RowError, id: RowId = None) -> ParsedRow:
    """The row that could not be read."""
    return ParsedRow(id, (), row_error=row_error)


def build_row_batch(
    parsed: Sequence[ParsedRow], first_line: int, requirements: RowRequirements
) -> RowBatch:
    """Rows of a text format, checked."""
    row_errors = {i: row.row_error for i, row in enumerate(parsed) if row.row_error is not None}
    hidden = _matrix(parsed, row_errors, requirements.bundle_info.hidden_size)
    entries = [None if i in row_errors else row.targets for i, row in enumerate(parsed)]
    listed = np.fromiter((row.listed for row in parsed), dtype=np.bool_, count=len(parsed))
    target, counts, oov = resolve(entries, listed, row_errors, requirements)
    return RowBatch(
        lines=range(first_line, first_line + len(parsed)),
        ids=[row.id for row in parsed],
        hidden=hidden,
        target=target,
        counts=counts,
        listed=listed,
        sequences=[row.sequence for row in parsed],
        oov=oov,
        row_errors=row_errors,
    )


def _matrix(parsed: Sequence[ParsedRow], row_errors: dict[int, RowError], width: int) -> Float32:
    """[rows, width] of what is well-formed; the rest becomes a flaw."""
    good = []
    for i, row in enumerate(parsed):
        if i in row_errors:
            continue
        if len(row.input) == width:
            good.append(i)
        else:
            row_errors[i] = wrong_width(width, len(row.input))
    hidden = np.zeros((len(parsed), width), dtype=np.float32)
    if good:
        numbers = np.array([parsed[i].input for i in good], dtype=np.float64)
        with np.errstate(over="ignore"):
            hidden[good] = numbers.astype(np.float32)
    expect_finite(hidden, row_errors)
    return hidden


def wrong_width(wanted: int, got: int) -> RowError:
    return RowError("invalid_query", f"input: expected {wanted} numbers, got {got}")


def sums_of(hidden: Float32) -> Float32:
    """[rows]; those of finite numbers alone may be infinite, and no others are finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        sums: Float32 = np.einsum("ij->i", hidden)  # one pass, no mask; much faster than `sum`
    return sums


def expect_finite(
    hidden: Float32, row_errors: dict[int, RowError], sums: Float32 | None = None
) -> None:
    """Rows with NaN, or infinity in float32, become flaws and zeros; in place."""
    suspects = np.flatnonzero(~np.isfinite(sums_of(hidden) if sums is None else sums))
    for i in map(int, suspects):
        wrong = np.flatnonzero(~np.isfinite(hidden[i]))
        if not len(wrong):
            continue  # finite numbers whose sum is not
        row_errors[i] = RowError(
            "invalid_query",
            f"input position {wrong[0]}: expected a finite number within float32, "
            f"got {hidden[i, wrong[0]]}",
        )
        hidden[i] = 0


def resolve(
    entries: Sequence[Sequence[TargetOrLabel] | None],
    listed: Array,
    row_errors: dict[int, RowError],
    requirements: RowRequirements,
) -> tuple[Int64, Int64, frozenset[int]]:
    """(targets of all rows, how many each has, rows out of vocabulary); the rest becomes flaws."""
    counts = np.zeros(len(entries), dtype=np.int64)
    numbers: list[int] = []
    oov = set()
    for i, entry in enumerate(entries):
        if i in row_errors or requirements.targets == "ignored":
            continue
        try:
            found = _numbers(entry, bool(listed[i]), requirements)
        except RowError as row_error:
            if row_error.code == "unknown_label" and requirements.oov == "exclude":
                oov.add(i)
            else:
                row_errors[i] = row_error
            continue
        counts[i] = len(found)
        numbers += found
    return np.array(numbers, dtype=np.int64), counts, frozenset(oov)


def resolve_numbers(
    target: Int64, present: Bool, row_errors: dict[int, RowError], requirements: RowRequirements
) -> tuple[Int64, Int64]:
    """As `resolve`, of one number a row: (targets of all rows, how many each has)."""
    if requirements.targets in ("ignored", "absent"):
        return np.empty(0, dtype=np.int64), np.zeros(len(target), dtype=np.int64)
    counts = np.ones(len(target), dtype=np.int64)
    for i in map(int, np.flatnonzero(~present)):
        row_errors.setdefault(i, RowError("invalid_query", "target: expected a value, got none"))
    wrong = (target < 0) | (target >= requirements.bundle_info.num_targets)
    for i in map(int, np.flatnonzero(wrong & present)):
        row_errors.setdefault(i, out_of_range(int(target[i]), requirements.bundle_info))
    counts[list(row_errors)] = 0
    return target[counts > 0], counts


def _numbers(
    entry: Sequence[TargetOrLabel] | None, listed: bool, requirements: RowRequirements
) -> list[int]:
    """A row's targets, in range. Raises Flaw."""
    if requirements.targets == "absent":
        if entry is not None:
            raise RowError("invalid_query", "target: expected none, as in the first row, got one")
        return []
    if entry is None:
        raise RowError("invalid_query", "target: expected a value, got none")
    if listed and requirements.targets == "one":
        raise RowError("invalid_query", "targets: expected one `target` in each row, got a list")
    return [_number(target, requirements.bundle_info) for target in entry]


def _number(target: TargetOrLabel, bundle_info: BundleInfo) -> int:
    if isinstance(target, str):
        return _labelled(target, bundle_info)
    if not 0 <= target < bundle_info.num_targets:
        raise out_of_range(target, bundle_info)
    return target


def out_of_range(target: int, bundle_info: BundleInfo) -> RowError:
    return RowError(
        "target_out_of_range", f"target: expected 0 to {bundle_info.num_targets - 1}, got {target}"
    )


def _labelled(label: str, bundle_info: BundleInfo) -> int:
    if bundle_info.labels is None:
        raise RowError(
            "unknown_label",
            f"target: expected an integer, as {bundle_info.name} has no labels, got text",
        )
    try:
        return bundle_info.target_of_label[label]
    except KeyError:
        raise RowError(
            "unknown_label", f"target: no label {label[:60]!r} in {bundle_info.name}"
        ) from None
