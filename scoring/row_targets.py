"""Turns the targets of rows, numbers or labels, into target numbers; a wrong one fails its row."""

from collections.abc import Sequence

import numpy as np

from hsoftmax.models.arrays import Array, BoolArray, Float64, Int64

from .bundle_info import BundleInfo
from .errors import RowError
from .label_suggestions import spelling_hint
from .requirements import RowRequirements, TargetOrLabel


def resolve_targets(
    entries: Sequence[Sequence[TargetOrLabel] | None],
    listed: Array,
    row_errors: dict[int, RowError],
    requirements: RowRequirements,
) -> tuple[Int64, Int64, frozenset[int]]:
    """Turns targets and labels into target numbers; adds the errors to `row_errors`.

    Returns:
        (targets of all rows one after another, the number of each row, rows out of vocabulary)
    """
    counts = np.zeros(len(entries), dtype=np.int64)
    targets: list[int] = []
    oov = set()
    for i, entry in enumerate(entries):
        if i in row_errors or requirements.targets == "ignored":
            continue
        try:
            row_targets = _row_targets(entry, bool(listed[i]), requirements)
        except RowError as row_error:
            if row_error.code == "unknown_label" and requirements.oov == "exclude":
                oov.add(i)
            else:
                row_errors[i] = row_error
            continue
        counts[i] = len(row_targets)
        targets += row_targets
    return np.array(targets, dtype=np.int64), counts, frozenset(oov)


def resolve_target_column(
    target: Int64 | Float64,
    present: BoolArray,
    row_errors: dict[int, RowError],
    requirements: RowRequirements,
) -> tuple[Int64, Int64]:
    """Does the same as `resolve_targets` for a column of one number for each row.

    Floats are targets if they are integral: pandas turns a column of integers with a gap to floats.

    Returns:
        (targets of all rows one after another, the number of each row)
    """
    if requirements.targets in ("ignored", "absent"):
        return np.empty(0, dtype=np.int64), np.zeros(len(target), dtype=np.int64)
    counts = np.ones(len(target), dtype=np.int64)
    for i in map(int, np.flatnonzero(~present)):
        row_errors.setdefault(i, RowError("invalid_query", "target: expected a value, got none"))
    if target.dtype.kind == "f":
        for i in map(int, np.flatnonzero((target != np.floor(target)) & present)):
            row_errors.setdefault(i, _fractional(float(target[i])))
    outside = (target < 0) | (target >= requirements.bundle_info.num_targets)
    for i in map(int, np.flatnonzero(outside & present)):
        row_errors.setdefault(i, out_of_range(target[i].item(), requirements.bundle_info))
    counts[list(row_errors)] = 0
    return target[counts > 0].astype(np.int64, copy=False), counts


def _row_targets(
    entry: Sequence[TargetOrLabel] | None, listed: bool, requirements: RowRequirements
) -> list[int]:
    """Returns a row's targets, all in range. Raises RowError."""
    if requirements.targets == "absent":
        if entry is not None:
            raise RowError("invalid_query", "target: expected none, as in the first row, got one")
        return []
    if entry is None:
        raise RowError("invalid_query", "target: expected a value, got none")
    if listed and requirements.targets == "one":
        raise RowError("invalid_query", "targets: expected one `target` in each row, got a list")
    return [_target_number(target, requirements.bundle_info) for target in entry]


def _target_number(target: TargetOrLabel, bundle_info: BundleInfo) -> int:
    if isinstance(target, str):
        return _target_of_label(target, bundle_info)
    if isinstance(target, float) and not target.is_integer():
        raise _fractional(target)
    if not 0 <= target < bundle_info.num_targets:
        raise out_of_range(target, bundle_info)
    return int(target)


def out_of_range(target: int | float, bundle_info: BundleInfo) -> RowError:
    return RowError(
        "target_out_of_range", f"target: expected 0 to {bundle_info.num_targets - 1}, got {target}"
    )


def _fractional(target: float) -> RowError:
    return RowError("invalid_query", f"target: expected an integer, got {target}")


def _target_of_label(label: str, bundle_info: BundleInfo) -> int:
    if bundle_info.labels is None:
        raise RowError(
            "unknown_label",
            f"target: expected an integer, as {bundle_info.name} has no labels, got text",
        )
    number = bundle_info.find_target(label)
    if number is None:
        hint = spelling_hint(label, bundle_info)
        raise RowError(
            "unknown_label", f"target: no label {label[:60]!r} in {bundle_info.name}{hint}"
        )
    return number
