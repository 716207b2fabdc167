"""What every input format is: rows read in blocks, from any position, and parsed apart from that.

Reading is cheap and goes in order; parsing a block needs nothing but the block, so that several
can be parsed at once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hsoftmax.scoring.row_batch import RowBatch, RowId, RowRequirements
from hsoftmax.scoring.task import TargetShape, ValueKind


@dataclass(frozen=True, slots=True)
class Position:
    """Where a row begins: the file, what the format counts there, and the line or row from 1."""

    file: int
    offset: int
    line: int


@dataclass(frozen=True, slots=True)
class RawBatch:
    """Some rows of one file as they were read; `end` is where the next ones begin."""

    start: Position
    end: Position
    rows: int
    content: Any  # the format's own


class RowReader(Protocol):
    """An input that is read once, in order, perhaps from the middle.

    Attributes:
        files: in the order they are read
        form: how rows name their targets, as far as the first ones show
        id_kind: "int64" where every id is an integer, else "string"
        total: how many rows there are, where that is known in advance
    """

    files: tuple[Path, ...]
    target_shape: TargetShape
    id_kind: ValueKind
    total: int | None

    def begin(self) -> Position: ...

    def read(self, position: Position, count: int) -> RawBatch | None:
        """At most `count` rows, all of one file; None at the end of the last file."""

    def skip(self, position: Position, count: int) -> tuple[Position, int]:
        """The position after at most `count` rows, and how many they were: 0 at the end."""

    def parse(self, raw_batch: RawBatch, requirements: RowRequirements) -> RowBatch: ...

    def ids(self) -> Iterator[Sequence[RowId]]:
        """The ids of all rows in order, some at a time, at the least cost; it reads on its own."""

    def fraction(self, position: Position) -> float:
        """How much of the input lies before this."""

    def close(self) -> None: ...


def target_shape_of(form_of: Sequence[str], target: str, targets: str) -> TargetShape:
    """The form of an input with these columns."""
    if target in form_of:
        return "one"
    return "many" if targets in form_of else "none"


def skip_rows(position: Position, count: int, rows: Sequence[int]) -> tuple[Position, int]:
    """As `Source.skip`, where offsets are rows and each file has so many."""
    left = count
    while True:
        step = min(left, rows[position.file] - position.offset)
        left -= step
        position = Position(position.file, position.offset + step, position.line + step)
        if not left or position.file + 1 == len(rows):
            return position, count - left
        position = Position(position.file + 1, 0, 1)
