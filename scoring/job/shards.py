"""Finds where each shard of a job begins, without parsing rows.

A cluster's driver sends these ranges to the machines that make the shards.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from hsoftmax.scoring.formats import Position

from .spec import JobSpec


@dataclass(frozen=True, slots=True)
class ShardStart:
    """The beginning of a shard; `first_row` counts from 0 over the whole input."""

    shard: int
    first_row: int
    position: Position


@dataclass(frozen=True, slots=True)
class ShardRange:
    """The rows of one shard."""

    start: ShardStart
    rows: int


def shard_ranges(spec: JobSpec, start: ShardStart) -> Iterator[ShardRange]:
    """Yields the shards from `start` to the end of the input."""
    while True:
        end, rows = spec.reader.skip(start.position, spec.shard_rows)
        if not rows:
            return
        yield ShardRange(start, rows)
        start = ShardStart(start.shard + 1, start.first_row + rows, end)
