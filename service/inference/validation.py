"""Validates a query's lists and converts them to arrays.

A graph does not check an index: one out of range wraps round and gives a plausible but wrong
probability. So every index is checked here.
"""

import math
import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import msgspec
import numpy as np

from hsoftmax.models.arrays import Array, Float32, Int64
from hsoftmax.scoring.label_suggestions import label_hint
from hsoftmax.service.errors import InvalidQuery, TargetOutOfRange, TooLarge, UnknownLabel
from hsoftmax.service.repository.loaded_bundle import LoadedBundle
from hsoftmax.service.settings import Settings

Inputs = list[list[float | str] | str] | dict[str, list[Any]]
Target = int | str
Targets = list[int | str | list[int | str]]


class TargetArray(msgspec.Struct, frozen=True):
    """Targets as one tensor.

    Attributes:
        target: integers of any type and shape, or the flat list of labels
        shape: [rows], [rows, targets], or [pairs] where there is `row`
        row: the row of each pair; None if a row of the tensor has the targets of a row
    """

    target: Array | list[str]
    shape: tuple[int, ...]
    row: Array | None = None


class Pairs(msgspec.Struct, frozen=True):
    """The (row, target) pairs of a query.

    Attributes:
        row: the row of each pair
        target: the target of each pair
        counts: the number of targets of each row; None if targets are flat, one for each row
    """

    row: Int64
    target: Int64
    counts: tuple[int, ...] | None


def hidden_states(inputs: Inputs | Array, bundle: LoadedBundle, settings: Settings) -> Float32:
    """The inputs as [batch, hidden_size] of finite float32.

    Raises:
        InvalidQuery: no rows, a row of another length, or a number beyond float32.
        TooLarge: more rows than the limit.
    """
    if isinstance(inputs, np.ndarray):
        return _check_matrix(inputs, bundle, settings)
    assert not isinstance(inputs, dict)  # `named_inputs` has put hidden states in their place
    if not inputs:
        raise InvalidQuery("inputs: expected at least one row, got none")
    if len(inputs) > settings.max_rows:
        raise TooLarge(f"inputs: expected at most {settings.max_rows} rows, got {len(inputs)}")
    width = bundle.hidden_size
    for i, row in enumerate(inputs):
        if len(row) != width:
            raise _wrong_row(i, row, bundle)
    try:
        # JSON has no NaN or infinity: only a number too large for float32 could become one.
        return _pack(inputs, width)
    except OverflowError:
        raise _overflow(inputs) from None
    except struct.error:  # a text of as many characters, or a text among the numbers
        i, row = next((i, row) for i, row in enumerate(inputs) if _has_text(row))
        raise _wrong_row(i, row, bundle) from None


def _wrong_row(i: int, row: list[float | str] | str, bundle: LoadedBundle) -> InvalidQuery:
    """The error of a row that is not `hidden_size` numbers, with the next step."""
    width = bundle.hidden_size
    next_step = ""
    if not bundle.takes_text:
        next_step = f": {bundle.name} takes no text, so send " + (
            "hidden states, or export a fastText or gensim model with its text"
            if bundle.encoder is None
            else "the inputs of its encoder by name, or export it with --tokenizer"
        )
    if isinstance(row, str):
        return InvalidQuery(
            f"inputs row {i}: expected a list of {width} numbers, got text{next_step}"
        )
    for j, value in enumerate(row):
        if isinstance(value, str):
            return InvalidQuery(
                f"inputs row {i}, position {j}: expected a number, got a string{next_step}"
            )
    return InvalidQuery(f"inputs row {i}: expected {width} numbers, got {len(row)}")


def _has_text(row: list[float | str] | str) -> bool:
    return isinstance(row, str) or any(isinstance(value, str) for value in row)


def _pack(inputs: list[list[float | str] | str], width: int) -> Float32:
    """Convert rows of equal width to an array, in a third of NumPy's time for lists."""
    pack = struct.Struct(f"<{width}f").pack  # "<" checks the range, native order does not
    rows_of_bytes = [pack(*row) for row in inputs]
    return np.ndarray((len(inputs), width), "<f4", b"".join(rows_of_bytes))


def _check_matrix(inputs: Array, bundle: LoadedBundle, settings: Settings) -> Float32:
    """Check a matrix body, which may hold NaN and infinity, and convert it to float32."""
    if inputs.ndim != 2 or inputs.shape[1] != bundle.hidden_size or not len(inputs):
        expected = f"rows of {bundle.hidden_size} numbers"
        raise InvalidQuery(f"inputs: expected {expected}, got shape {inputs.shape}")
    if len(inputs) > settings.max_rows:
        raise TooLarge(f"inputs: expected at most {settings.max_rows} rows, got {len(inputs)}")
    states = inputs
    if inputs.dtype != np.float32 or not inputs.flags.c_contiguous:
        with np.errstate(over="ignore"):
            states = np.ascontiguousarray(inputs, dtype=np.float32)
    if np.count_nonzero(np.isfinite(states)) < states.size:  # `all` takes twice as long for one row
        i, j = np.argwhere(~np.isfinite(states))[0]
        got = inputs[i, j]
        raise InvalidQuery(
            f"inputs row {i}, position {j}: expected a finite number within float32, got {got}"
        )
    return states


def target_pairs(
    targets: Targets | TargetArray, rows: int, bundle: LoadedBundle, settings: Settings
) -> Pairs:
    """The (row, target) pairs of a query.

    Raises:
        InvalidQuery: not one entry for each row, or flat and nested entries mixed.
        TargetOutOfRange, UnknownLabel: a target that the bundle does not have.
        TooLarge: more pairs than the limit.
    """
    if isinstance(targets, TargetArray):
        return _pairs_of_array(targets, rows, bundle, settings)
    if len(targets) != rows:
        raise InvalidQuery(f"targets: expected {rows}, one for each row, got {len(targets)}")
    nested = [entry for entry in targets if isinstance(entry, list)]
    if not nested:
        flat: list[Target] = targets  # type: ignore[assignment]  # no entry is a list
        return Pairs(_row_numbers(rows), _check_targets(flat, [1] * rows, bundle), None)
    if len(nested) != rows:
        raise InvalidQuery("targets: expected all numbers or all lists, got both")
    counts = tuple(map(len, nested))
    if (total := sum(counts)) > settings.max_targets:
        raise TooLarge(f"targets: expected at most {settings.max_targets}, got {total}")
    listed = list(chain.from_iterable(nested))
    row = _row_numbers(rows)
    if total != rows or not min(counts):
        row = np.repeat(row, counts)
    return Pairs(row, _check_targets(listed, counts, bundle), counts)


def _pairs_of_array(
    targets: TargetArray, rows: int, bundle: LoadedBundle, settings: Settings
) -> Pairs:
    shape, count = targets.shape, math.prod(targets.shape)
    if count > settings.max_targets:
        raise TooLarge(f"targets: expected at most {settings.max_targets}, got {count}")
    if targets.row is not None:
        row = _pair_rows(targets.row, shape, rows)
    elif count == rows:  # also a target for each position of an encoder that gives all of them
        row = _row_numbers(rows)
    elif len(shape) == 2 and shape[0] == rows:
        row = np.repeat(_row_numbers(rows), shape[1])
    else:
        raise InvalidQuery(
            f"target: expected shape [{rows}] or [{rows}, targets], got {list(shape)}"
        )
    return Pairs(row, _check_target_array(targets.target, row, bundle), None)


def _pair_rows(row: Array, shape: tuple[int, ...], rows: int) -> Int64:
    if row.shape != shape or len(shape) != 1:
        raise InvalidQuery(
            f"row: expected one for each target, got {list(row.shape)} of target {list(shape)}"
        )
    wrong = (row < 0) | (row >= rows)
    if wrong.any():
        raise InvalidQuery(f"row: expected 0 to {rows - 1}, got {row[wrong][0]}")
    return row.astype(np.int64)


def _check_target_array(target: Array | list[str], row: Int64, bundle: LoadedBundle) -> Int64:
    if isinstance(target, list):
        return np.array([_target_of_label(one, bundle) for one in target], dtype=np.int64)
    flat, last = target.ravel(), bundle.num_targets - 1
    if flat.size and not (flat.min() >= 0 and flat.max() <= last):
        bad = int(np.argmax((flat < 0) | (flat > last)))
        raise TargetOutOfRange(f"targets row {row[bad]}: expected 0 to {last}, got {flat[bad]}")
    return flat.astype(np.int64, copy=False)


@lru_cache(maxsize=16)
def _row_numbers(rows: int) -> Int64:
    """The array 0..rows-1, cached and read-only."""
    numbers = np.arange(rows)
    numbers.flags.writeable = False
    return numbers


def expect_k(k: int, bundle: LoadedBundle) -> int:
    """Return k if it is in 1..num_targets. Raises InvalidQuery."""
    if not 1 <= k <= bundle.num_targets:
        raise InvalidQuery(f"k: expected 1 to {bundle.num_targets}, got {k}")
    return k


def expect_values(rows: int, each: int, settings: Settings) -> None:
    """Raise TooLarge unless a response of rows x each numbers is within the limit."""
    if rows * each > settings.max_values:
        raise TooLarge(
            f"answer: expected at most {settings.max_values} numbers, got {rows} x {each}"
        )


def _overflow(inputs: list[list[float | str] | str]) -> InvalidQuery:
    """The error for the first number beyond float32."""
    largest = float(np.finfo(np.float32).max)
    i, j = np.argwhere(np.abs(np.array(inputs)) > largest)[0]
    return InvalidQuery(
        f"inputs row {i}, position {j}: expected a number within float32, got {inputs[i][j]}"
    )


def _check_targets(targets: Sequence[Target], counts: Sequence[int], bundle: LoadedBundle) -> Int64:
    """[pairs]: the targets as numbers, labels looked up, each in range."""
    numbers = [t if isinstance(t, int) else _target_of_label(t, bundle) for t in targets]
    last = bundle.num_targets - 1
    if numbers and not (min(numbers) >= 0 and max(numbers) <= last):
        _expect_in_range(targets, counts, last)
    return np.array(numbers, dtype=np.int64)


def _expect_in_range(targets: Sequence[Target], counts: Sequence[int], last: int) -> None:
    """Raise TargetOutOfRange for the first integer that is no target; labels are known already.

    The number of an inner node is beyond the last target, and only its label stands for it.
    """
    for i, target in enumerate(targets):
        if isinstance(target, int) and not 0 <= target <= last:
            row = int(np.searchsorted(np.cumsum(counts), i, side="right"))
            raise TargetOutOfRange(f"targets row {row}: expected 0 to {last}, got {target}")


def unknown_label(place: str, label: str, bundle: LoadedBundle) -> UnknownLabel:
    """The error of a label that the bundle lacks, with one that is close to it."""
    hint = label_hint(label, bundle.bundle_info)
    return UnknownLabel(f"{place}: no label {label[:60]!r} in {bundle.name}{hint}")


def _target_of_label(label: str, bundle: LoadedBundle) -> int:
    """The target of a label. Raises UnknownLabel."""
    if bundle.labels is None:
        raise UnknownLabel(f"targets: expected integers, as {bundle.name} has no labels, got text")
    number = bundle.bundle_info.find_target(label)
    if number is None:
        raise unknown_label("targets", label, bundle)
    return number
