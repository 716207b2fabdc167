"""Where each shard of a job begins, found without parsing a row: what one machine tells others."""

from collections.abc import Iterator
from dataclasses import dataclass

from hsoftmax.scoring.formats import Position

from .spec import Order


@dataclass(frozen=True, slots=True)
class Start:
    """The beginning of a shard; `first_row` counts from 0 over the whole input."""

    shard: int
    first_row: int
    position: Position


@dataclass(frozen=True, slots=True)
class Cut:
    """One shard as it is to be made."""

    start: Start
    rows: int


def cuts(order: Order, start: Start) -> Iterator[Cut]:
    """The shards from here to the end."""
    while True:
        end, rows = order.source.skip(start.position, order.shard_rows)
        if not rows:
            return
        yield Cut(start, rows)
        start = Start(start.shard + 1, start.first_row + rows, end)
