"""The totals of a stream, counted while it runs; their memory is bounded for any stream length."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

from hsoftmax.scoring.perplexity import Tally, tally_sequences
from hsoftmax.scoring.requirements import RowId
from hsoftmax.scoring.results import RowResults
from hsoftmax.scoring.row_batch import RowBatch
from hsoftmax.scoring.task import Task

_MAX_SEQUENCES = 10_000


@dataclass
class StreamTotals:
    """Rows, failures, a hash of all bytes sent, and the sums of perplexity.

    It holds the sums of at most `max_sequences` sequences. Beyond that, the sequence that began
    first is reported and dropped. If another row of it follows, it is reported a second time; the
    sums of its reports add up.

    Attributes:
        has_summary: True once the summary was made, after which nothing is counted
    """

    rows: int = 0
    failed: int = 0
    has_summary: bool = False
    corpus: Tally = field(default_factory=Tally)
    max_sequences: int = _MAX_SEQUENCES
    _sequences: dict[RowId, Tally] = field(default_factory=dict)
    _log_base: float | None = None
    _digest: Any = field(default_factory=hashlib.sha256)

    def hash(self, piece: bytes) -> None:
        """Adds sent bytes to the hash."""
        self._digest.update(piece)

    def add(self, rows: RowBatch, results: RowResults, task: Task) -> None:
        """Counts a batch."""
        self.rows += len(rows)
        self.failed += len(results.row_errors)
        if task.name != "perplexity":
            return
        self._log_base = task.log_base
        for name, tally in tally_sequences(rows, results, task.log_base).items():
            self._sequences[name] = self._sequences.get(name, Tally()) + tally
            self.corpus += tally

    def pop_excess_sequences(self) -> list[dict[str, Any]]:
        """Drops the sequences beyond the limit, and returns their reports."""
        return self._pop_reports(len(self._sequences) - self.max_sequences)

    def pop_all_sequences(self) -> list[dict[str, Any]]:
        """Drops all sequences, and returns their reports in the order of their first rows."""
        return self._pop_reports(len(self._sequences))

    def summary(self, task: Task) -> dict[str, Any]:
        """Returns the last record of the stream."""
        self.has_summary = True
        summary: dict[str, Any] = {
            "rows_in": self.rows,
            "scored": self.rows - self.failed,
            "failed": self.failed,
            "sha256": self._digest.hexdigest(),
        }
        if task.name == "perplexity":
            summary["corpus"] = self.corpus.report(task.log_base)
        return summary

    def _pop_reports(self, count: int) -> list[dict[str, Any]]:
        names = list(self._sequences)[:count] if count > 0 else []
        return [
            {"sequence": name, **self._sequences.pop(name).report(self._log_base)} for name in names
        ]
