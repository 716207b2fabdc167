"""Prints the results as one table, a row as soon as it is known."""

import time
from dataclasses import dataclass, field

_WIDTHS = (34, 20, 12, 0)


@dataclass
class Table:
    """Prints rows; `failed` counts those that are wrong.

    Attributes:
        seconds: the time that the whole check may take
    """

    seconds: float
    failed: int = 0
    left_out: int = 0
    started: float = field(default_factory=time.perf_counter)

    @property
    def is_late(self) -> bool:
        return time.perf_counter() - self.started > self.seconds

    def row(self, *cells: str, ok: bool = True) -> None:
        """Print one row."""
        self.failed += not ok
        padded = [cell.ljust(width) for cell, width in zip(cells, _WIDTHS, strict=False)]
        print(*padded, *cells[len(padded) :], flush=True)

    def leave_out(self, *cells: str) -> None:
        """Print that there was no time for something."""
        self.left_out += 1
        self.row(*cells, "left out", "no time")
