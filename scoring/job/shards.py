"""Where each shard of a job begins, found without parsing a row: what one machine tells others."""

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
    """One shard as it is to be made."""

    start: ShardStart
    rows: int


def shard_ranges(spec: JobSpec, start: ShardStart) -> Iterator[ShardRange]:
    """The shards from here to the end."""
    while True:
        end, rows = spec.reader.skip(start.position, spec.shard_rows)
        if not rows:
            return
        yield ShardRange(start, rows)
        start = ShardStart(start.shard + 1, start.first_row + rows, end)
