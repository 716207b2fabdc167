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

from .bundle_info import Facts
from .choices import Oov
from .errors import Flaw
from .task import Task, needs_target, reads_target

Bool = NDArray[np.bool_]
Id = str | int | None
Target = int | str

# "any": one or a list; "maybe": or none; "absent": it would be a mistake; "ignored": no matter
Wanted = Literal["one", "any", "absent", "ignored"]


@dataclass(frozen=True, slots=True, eq=False)
class Integers(Sequence[int]):
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
class Rows:
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
    ids: Sequence[Id]
    hidden: Float32
    target: Int64
    counts: Int64
    listed: Bool
    sequences: Sequence[Id]
    oov: frozenset[int]
    flaws: Mapping[int, Flaw]

    def __len__(self) -> int:
        return len(self.hidden)


@dataclass(frozen=True, slots=True)
class Reading:
    """What rows are read for."""

    facts: Facts
    targets: Wanted
    oov: Oov = "error"


@dataclass(slots=True)
class Parsed:
    """One row of a text format, before its numbers are checked."""

    id: Id
    input: Sequence[float]
    targets: Sequence[Target] | None = None
    listed: bool = False
    sequence: Id = None
    flaw: Flaw | None = None


def reading(task: Task, full: bool, facts: Facts) -> Reading:
    """What `task` wants of a row; `full` where it asks for whole distributions."""
    if not reads_target(task):
        return Reading(facts, "ignored")
    if full and not needs_target(task):
        return Reading(facts, "absent")
    if task.name == "perplexity":
        return Reading(facts, "one", task.oov)
    return Reading(facts, "any")


def flawed(flaw: Flaw, id: Id = None) -> Parsed:
    """The row that could not be read."""
    return Parsed(id, (), flaw=flaw)


def gather(parsed: Sequence[Parsed], first_line: int, reading: Reading) -> Rows:
    """Rows of a text format, checked."""
    flaws = {i: row.flaw for i, row in enumerate(parsed) if row.flaw is not None}
    hidden = _matrix(parsed, flaws, reading.facts.hidden_size)
    entries = [None if i in flaws else row.targets for i, row in enumerate(parsed)]
    listed = np.fromiter((row.listed for row in parsed), dtype=np.bool_, count=len(parsed))
    target, counts, oov = resolve(entries, listed, flaws, reading)
    return Rows(
        lines=range(first_line, first_line + len(parsed)),
        ids=[row.id for row in parsed],
        hidden=hidden,
        target=target,
        counts=counts,
        listed=listed,
        sequences=[row.sequence for row in parsed],
        oov=oov,
        flaws=flaws,
    )


def _matrix(parsed: Sequence[Parsed], flaws: dict[int, Flaw], width: int) -> Float32:
    """[rows, width] of what is well-formed; the rest becomes a flaw."""
    good = []
    for i, row in enumerate(parsed):
        if i in flaws:
            continue
        if len(row.input) == width:
            good.append(i)
        else:
            flaws[i] = wrong_width(width, len(row.input))
    hidden = np.zeros((len(parsed), width), dtype=np.float32)
    if good:
        numbers = np.array([parsed[i].input for i in good], dtype=np.float64)
        with np.errstate(over="ignore"):
            hidden[good] = numbers.astype(np.float32)
    expect_finite(hidden, flaws)
    return hidden


def wrong_width(wanted: int, got: int) -> Flaw:
    return Flaw("invalid_query", f"input: expected {wanted} numbers, got {got}")


def sums_of(hidden: Float32) -> Float32:
    """[rows]; those of finite numbers alone may be infinite, and no others are finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        sums: Float32 = np.einsum("ij->i", hidden)  # one pass, no mask; much faster than `sum`
    return sums


def expect_finite(hidden: Float32, flaws: dict[int, Flaw], sums: Float32 | None = None) -> None:
    """Rows with NaN, or infinity in float32, become flaws and zeros; in place."""
    suspects = np.flatnonzero(~np.isfinite(sums_of(hidden) if sums is None else sums))
    for i in map(int, suspects):
        wrong = np.flatnonzero(~np.isfinite(hidden[i]))
        if not len(wrong):
            continue  # finite numbers whose sum is not
        flaws[i] = Flaw(
            "invalid_query",
            f"input position {wrong[0]}: expected a finite number within float32, "
            f"got {hidden[i, wrong[0]]}",
        )
        hidden[i] = 0


def resolve(
    entries: Sequence[Sequence[Target] | None],
    listed: Array,
    flaws: dict[int, Flaw],
    reading: Reading,
) -> tuple[Int64, Int64, frozenset[int]]:
    """(targets of all rows, how many each has, rows out of vocabulary); the rest becomes flaws."""
    counts = np.zeros(len(entries), dtype=np.int64)
    numbers: list[int] = []
    oov = set()
    for i, entry in enumerate(entries):
        if i in flaws or reading.targets == "ignored":
            continue
        try:
            found = _numbers(entry, bool(listed[i]), reading)
        except Flaw as flaw:
            if flaw.code == "unknown_label" and reading.oov == "exclude":
                oov.add(i)
            else:
                flaws[i] = flaw
            continue
        counts[i] = len(found)
        numbers += found
    return np.array(numbers, dtype=np.int64), counts, frozenset(oov)


def resolve_numbers(
    target: Int64, present: Bool, flaws: dict[int, Flaw], reading: Reading
) -> tuple[Int64, Int64]:
    """As `resolve`, of one number a row: (targets of all rows, how many each has)."""
    if reading.targets in ("ignored", "absent"):
        return np.empty(0, dtype=np.int64), np.zeros(len(target), dtype=np.int64)
    counts = np.ones(len(target), dtype=np.int64)
    for i in map(int, np.flatnonzero(~present)):
        flaws.setdefault(i, Flaw("invalid_query", "target: expected a value, got none"))
    wrong = (target < 0) | (target >= reading.facts.num_targets)
    for i in map(int, np.flatnonzero(wrong & present)):
        flaws.setdefault(i, out_of_range(int(target[i]), reading.facts))
    counts[list(flaws)] = 0
    return target[counts > 0], counts


def _numbers(entry: Sequence[Target] | None, listed: bool, reading: Reading) -> list[int]:
    """A row's targets, in range. Raises Flaw."""
    if reading.targets == "absent":
        if entry is not None:
            raise Flaw("invalid_query", "target: expected none, as in the first row, got one")
        return []
    if entry is None:
        raise Flaw("invalid_query", "target: expected a value, got none")
    if listed and reading.targets == "one":
        raise Flaw("invalid_query", "targets: expected one `target` in each row, got a list")
    return [_number(target, reading.facts) for target in entry]


def _number(target: Target, facts: Facts) -> int:
    if isinstance(target, str):
        return _labelled(target, facts)
    if not 0 <= target < facts.num_targets:
        raise out_of_range(target, facts)
    return target


def out_of_range(target: int, facts: Facts) -> Flaw:
    return Flaw(
        "target_out_of_range", f"target: expected 0 to {facts.num_targets - 1}, got {target}"
    )


def _labelled(label: str, facts: Facts) -> int:
    if facts.labels is None:
        raise Flaw(
            "unknown_label", f"target: expected an integer, as {facts.name} has no labels, got text"
        )
    try:
        return facts.target_of_label[label]
    except KeyError:
        raise Flaw("unknown_label", f"target: no label {label[:60]!r} in {facts.name}") from None
