"""The table of the compatibility run: one row for each environment."""

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

_HEAD = ("environment", "Python", "passed", "failed", "skipped", "seconds")


@dataclass(frozen=True)
class Result:
    """The tests of one environment. Errors in a fixture count as failed."""

    environment: str
    python: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0

    @property
    def is_success(self) -> bool:
        """True if tests passed and none failed: a run without tests proves nothing."""
        return self.passed > 0 and self.failed == 0


def read_report(environment: str, python: str, report: Path) -> Result:
    """Return the result in pytest's report. It counts nothing if pytest wrote no report."""
    if not report.exists():
        return Result(environment, python)
    suite = next(ElementTree.parse(report).iter("testsuite")).attrib
    failed = int(suite["failures"]) + int(suite["errors"])
    skipped = int(suite["skipped"])
    passed = int(suite["tests"]) - failed - skipped
    return Result(environment, python, passed, failed, skipped, float(suite["time"]))


def table(results: list[Result]) -> str:
    """Return the results as a Markdown table."""
    rows = [_HEAD, ("---",) * len(_HEAD), *map(_cells, results)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cells(result: Result) -> tuple[str, ...]:
    counts = (f"{count:,}" for count in (result.passed, result.failed, result.skipped))
    return (result.environment, result.python, *counts, f"{result.seconds:,.0f}")
