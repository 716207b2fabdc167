"""Counts failed rows by the code of their error, with the first sentence of each code.

The checkpoint keeps the counts of each shard, so the summary of a resumed job has those of all.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .results import RowResults


@dataclass(frozen=True, slots=True)
class Failures:
    """The number of rows that failed with one code, and the first one's sentence."""

    rows: int
    example: str

    def __add__(self, later: "Failures") -> "Failures":
        return Failures(self.rows + later.rows, self.example)


FailuresByCode = Mapping[str, Failures]


def count_failures(results: RowResults) -> dict[str, Failures]:
    """Returns the failures of a batch by code."""
    row_errors = [results.row_errors[i] for i in sorted(results.row_errors)]
    counts = Counter(row_error.code for row_error in row_errors)
    first = {row_error.code: str(row_error) for row_error in reversed(row_errors)}
    return {code: Failures(rows, first[code]) for code, rows in counts.items()}


def add_failures(parts: Iterable[FailuresByCode]) -> dict[str, Failures]:
    """Returns the sums of several parts, which are in the order of their rows."""
    total: dict[str, Failures] = {}
    for part in parts:
        for code, failures in part.items():
            total[code] = total[code] + failures if code in total else failures
    return total


def report_failures(by_code: FailuresByCode) -> list[dict[str, Any]]:
    """Returns the failures as JSON, the commonest first."""
    items = sorted(by_code.items(), key=lambda item: -item[1].rows)
    return [
        {"code": code, "rows": failures.rows, "example": failures.example}
        for code, failures in items
    ]


def total_failure(summary: Mapping[str, Any]) -> str | None:
    """Returns the sentence about a job of which every row failed, or None if one row did not."""
    rows, failed = summary["rows_in"], summary["failed"]
    if not rows or failed < rows:
        return None
    sentence = f"rows: expected some that can be scored, got {failed:,} that failed"
    if not summary.get("failures"):  # shards of an older version have no counts
        return sentence
    commonest = summary["failures"][0]
    return f"{sentence}; {commonest['rows']:,} of them {commonest['code']}: {commonest['example']}"
