"""The progress bar of a job: rows per second and the time left, at a terminal only."""

from time import perf_counter
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

_STEPS = 1_000_000  # of the bar: the input is measured as a fraction


class ProgressBar:
    """Shows a job's progress, and measures the rate of this run.

    A resumed job starts in the middle, so the rate counts from the first update.
    """

    def __init__(self) -> None:
        console = Console(stderr=True)
        columns = (BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
                   TextColumn("{task.description}"), TimeRemainingColumn())  # fmt: skip
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._progress.add_task("", total=_STEPS)
        self._rows = 0
        self._first: tuple[int, float] | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._progress.disable:  # Rich before 14.3 prints an empty line if it is disabled
            self._progress.stop()

    def update(self, rows: int, failed: int, fraction: float) -> None:
        """Shows the finished rows, the failed ones among them, and the fraction of the input."""
        self._rows = rows
        if self._first is None:
            self._first = (rows, perf_counter())
        failures = f", {failed:,} failed" if failed else ""
        description = f"{rows:,} rows{failures}{self.rate()}"
        self._progress.update(self._task, completed=int(fraction * _STEPS), description=description)

    def rate(self) -> str:
        """Returns the rows per second of this run as text, or "" if it finished no rows."""
        if self._first is None or self._rows == self._first[0]:
            return ""
        rows, since = self._first
        return f", {(self._rows - rows) / max(1e-9, perf_counter() - since):,.0f} rows/s"
