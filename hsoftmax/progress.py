"""How a job goes: on a terminal a bar with rows a second and the time left, elsewhere nothing."""

from time import perf_counter
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

_STEPS = 1_000_000  # of the bar: inputs are measured in bytes or in rows


class ProgressBar:
    """The bar, and what it knows of the rate; a job taken up begins in the middle."""

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
        self._progress.stop()

    def update(self, rows: int, failed: int, fraction: float) -> None:
        """So many rows are done, and such a part of the input."""
        self._rows = rows
        if self._first is None:
            self._first = (rows, perf_counter())
        wrong = f", {failed:,} failed" if failed else ""
        said = f"{rows:,} rows{wrong}{self.rate()}"
        self._progress.update(self._task, completed=int(fraction * _STEPS), description=said)

    def rate(self) -> str:
        """Rows a second of this run; nothing where it had none to do."""
        if self._first is None or self._rows == self._first[0]:
            return ""
        rows, since = self._first
        return f", {(self._rows - rows) / max(1e-9, perf_counter() - since):,.0f} rows/s"
