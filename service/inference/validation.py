"""A query's lists as arrays, checked: nothing that is out of range ever reaches a graph.

A wrong index would not fail there: it wraps round and gives a plausible wrong probability.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain

import msgspec
import numpy as np

from hsoftmax.models.arrays import Array, Float32, Int64
from hsoftmax.service.errors import InvalidQuery, TargetOutOfRange, TooLarge, UnknownLabel
from hsoftmax.service.repository.loaded_bundle import LoadedBundle
from hsoftmax.service.settings import Settings

Inputs = list[list[float]]
Target = int | str
Targets = list[int | str | list[int | str]]


class Pairs(msgspec.Struct, frozen=True):
    """Which target of which row; `counts` is how many each row has, None if flat, one a row."""

    row: Int64
    target: Int64
    counts: tuple[int, ...] | None


def hidden(inputs: Inputs | Array, served: LoadedBundle, limits: Settings) -> Float32:
    """[batch, hidden_size], finite. Raises InvalidQuery naming the row, or TooLarge."""
    if isinstance(inputs, np.ndarray):
        return _matrix(inputs, served, limits)
    if not inputs:
        raise InvalidQuery("inputs: expected at least one row, got none")
    if len(inputs) > limits.max_rows:
        raise TooLarge(f"inputs: expected at most {limits.max_rows} rows, got {len(inputs)}")
    width = served.hidden_size
    for i, row in enumerate(inputs):
        if len(row) != width:
            raise InvalidQuery(f"inputs row {i}: expected {width} numbers, got {len(row)}")
    try:
        # JSON has no NaN or infinity: only a number too large for float32 could become one.
        return _packed(inputs, width)
    except OverflowError:
        raise _overflow(inputs) from None


def _packed(inputs: Inputs, width: int) -> Float32:
    """Rows of this width as an array, in a third of the time that NumPy takes for lists."""
    pack = struct.Struct(f"<{width}f").pack  # which checks the range, as native order would not
    packed = [pack(*row) for row in inputs]
    return np.ndarray((len(inputs), width), "<f4", b"".join(packed))


def _matrix(inputs: Array, served: LoadedBundle, limits: Settings) -> Float32:
    """The same of an array, which may hold what JSON cannot."""
    if inputs.ndim != 2 or inputs.shape[1] != served.hidden_size or not len(inputs):
        wanted = f"rows of {served.hidden_size} numbers"
        raise InvalidQuery(f"inputs: expected {wanted}, got shape {inputs.shape}")
    if len(inputs) > limits.max_rows:
        raise TooLarge(f"inputs: expected at most {limits.max_rows} rows, got {len(inputs)}")
    states = inputs
    if inputs.dtype != np.float32 or not inputs.flags.c_contiguous:
        with np.errstate(over="ignore"):
            states = np.ascontiguousarray(inputs, dtype=np.float32)
    if np.count_nonzero(np.isfinite(states)) < states.size:  # `all` takes twice as long for a row
        i, j = np.argwhere(~np.isfinite(states))[0]
        got = inputs[i, j]
        raise InvalidQuery(
            f"inputs row {i}, position {j}: expected a finite number within float32, got {got}"
        )
    return states


def pairs(targets: Targets, rows: int, served: LoadedBundle, limits: Settings) -> Pairs:
    """The (row, target) pairs that were asked for.

    Raises:
        InvalidQuery: not one entry per row, or flat and nested mixed.
        TargetOutOfRange, UnknownLabel: a target that the bundle does not have.
        TooLarge: more pairs than the limit.
    """
    if len(targets) != rows:
        raise InvalidQuery(f"targets: expected {rows}, one for each row, got {len(targets)}")
    nested = [entry for entry in targets if isinstance(entry, list)]
    if not nested:
        flat: list[Target] = targets  # type: ignore[assignment]  # as none of them is a list
        return Pairs(_numbered(rows), _checked(flat, [1] * rows, served), None)
    if len(nested) != rows:
        raise InvalidQuery("targets: expected all numbers or all lists, got both")
    counts = tuple(map(len, nested))
    if (total := sum(counts)) > limits.max_targets:
        raise TooLarge(f"targets: expected at most {limits.max_targets}, got {total}")
    listed = list(chain.from_iterable(nested))
    row = _numbered(rows) if total == rows and min(counts) else np.repeat(_numbered(rows), counts)
    return Pairs(row, _checked(listed, counts, served), counts)


@lru_cache(maxsize=16)
def _numbered(rows: int) -> Int64:
    """0 to rows, for all who ask for as many."""
    numbers = np.arange(rows)
    numbers.flags.writeable = False
    return numbers


def expect_k(k: int, served: LoadedBundle) -> int:
    """k in 1..N. Raises InvalidQuery."""
    if not 1 <= k <= served.num_targets:
        raise InvalidQuery(f"k: expected 1 to {served.num_targets}, got {k}")
    return k


def expect_values(rows: int, each: int, limits: Settings) -> None:
    """Raise TooLarge unless an answer of rows x each numbers is within the limit."""
    if rows * each > limits.max_values:
        raise TooLarge(f"answer: expected at most {limits.max_values} numbers, got {rows} x {each}")


def _overflow(inputs: Inputs) -> InvalidQuery:
    largest = float(np.finfo(np.float32).max)
    i, j = np.argwhere(np.abs(np.array(inputs)) > largest)[0]
    return InvalidQuery(
        f"inputs row {i}, position {j}: expected a number within float32, got {inputs[i][j]}"
    )


def _checked(targets: Sequence[Target], counts: Sequence[int], served: LoadedBundle) -> Int64:
    """[pairs]: labels looked up, every target in range."""
    numbers = [t if isinstance(t, int) else _labelled(t, served) for t in targets]
    last = served.num_targets - 1
    if numbers and not (min(numbers) >= 0 and max(numbers) <= last):
        bad = next(i for i, t in enumerate(numbers) if not 0 <= t <= last)
        row = int(np.searchsorted(np.cumsum(counts), bad, side="right"))
        raise TargetOutOfRange(f"targets row {row}: expected 0 to {last}, got {numbers[bad]}")
    return np.array(numbers, dtype=np.int64)


def _labelled(label: str, served: LoadedBundle) -> int:
    if served.labels is None:
        raise UnknownLabel(f"targets: expected integers, as {served.name} has no labels, got text")
    try:
        return served.target_of_label[label]
    except KeyError:
        raise UnknownLabel(f"targets: no label {label[:60]!r} in {served.name}") from None
