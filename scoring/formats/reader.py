"""The interface of every input format.

`read` returns a batch of raw rows from any position; `parse` turns a raw batch into rows. Reading
is cheap and goes in order. Parsing needs nothing but the raw batch, so several threads can parse.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hsoftmax.scoring.requirements import RowId, RowRequirements
from hsoftmax.scoring.row_batch import RowBatch
from hsoftmax.scoring.task import TargetShape, ValueKind


@dataclass(frozen=True, slots=True)
class Position:
    """The beginning of a row.

    Attributes:
        file: index of the file
        offset: bytes or rows before it in the file, as the format counts
        line: number of the line or row in the file, from 1
    """

    file: int
    offset: int
    line: int


@dataclass(frozen=True, slots=True)
class RawBatch:
    """Rows of one file, read but not parsed; `end` is the position of the row after them."""

    start: Position
    end: Position
    rows: int
    content: Any  # in the format's own type


class RowReader(Protocol):
    """An open input, read in order, from its beginning or from a later position.

    Attributes:
        files: the files in the order in which they are read
        target_shape: how the first rows name their targets
        id_kind: "int64" if every id is an integer, else "string"
        total: the number of rows, or None if it is not known in advance
        states_rows: True if a file says itself how many rows it has, so that none are a table
            without rows; False if rows are what lies between line ends
    """

    files: tuple[Path, ...]
    target_shape: TargetShape
    id_kind: ValueKind
    total: int | None

    @property
    def states_rows(self) -> bool: ...

    def begin(self) -> Position: ...

    def read(self, position: Position, count: int) -> RawBatch | None:
        """Reads at most `count` rows of one file. Returns None at the end of the last file."""

    def skip(self, position: Position, count: int) -> tuple[Position, int]:
        """Returns (position after at most `count` rows, number of those rows); 0 at the end."""

    def parse(self, raw_batch: RawBatch, requirements: RowRequirements) -> RowBatch: ...

    def ids(self) -> Iterator[Sequence[RowId]]:
        """Yields the ids of all rows in order, in batches. It does not move the reader."""

    def fraction(self, position: Position) -> float:
        """Returns the fraction of the input before a position."""

    def close(self) -> None: ...


def target_shape_of(names: Sequence[str], target: str, targets: str) -> TargetShape:
    """Returns the target shape of an input with columns of these names."""
    if target in names:
        return "one"
    return "many" if targets in names else "none"


def skip_rows(position: Position, count: int, rows: Sequence[int]) -> tuple[Position, int]:
    """Implements `RowReader.skip` for offsets in rows; `rows` are the numbers of rows by file."""
    left = count
    while True:
        step = min(left, rows[position.file] - position.offset)
        left -= step
        position = Position(position.file, position.offset + step, position.line + step)
        if not left or position.file + 1 == len(rows):
            return position, count - left
        position = Position(position.file + 1, 0, 1)
