"""What a stream's summary says: counted on the way, within a bound however long the stream is."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

from hsoftmax.scoring.perplexity import Tally, tallies
from hsoftmax.scoring.results import RowResults
from hsoftmax.scoring.row_batch import RowBatch, RowId
from hsoftmax.scoring.task import Task

_MOST_SEQUENCES = 10_000  # whose sums are held


@dataclass
class StreamTotals:
    """Rows, failures, a hash of what was given, and the sums of perplexity.

    Of more sequences than are held, the one that began first is said to have ended. If a row of it
    follows all the same, it is told of twice, and its sums add up.
    """

    rows: int = 0
    failed: int = 0
    summed_up: bool = False
    corpus: Tally = field(default_factory=Tally)
    most_sequences: int = _MOST_SEQUENCES
    _sequences: dict[RowId, Tally] = field(default_factory=dict)
    _log_base: float | None = None
    _digest: Any = field(default_factory=hashlib.sha256)

    def hash(self, piece: bytes) -> None:
        """Take note of bytes that are given."""
        self._digest.update(piece)

    def add(self, rows: RowBatch, results: RowResults, task: Task) -> None:
        self.rows += len(rows)
        self.failed += len(results.row_errors)
        if task.name != "perplexity":
            return
        self._log_base = task.log_base
        for name, tally in tallies(rows, results, task.log_base).items():
            self._sequences[name] = self._sequences.get(name, Tally()) + tally
            self.corpus += tally

    def ended(self) -> list[dict[str, Any]]:
        """Reports of the sequences that are more than are held."""
        return self._reports(len(self._sequences) - self.most_sequences)

    def rest(self) -> list[dict[str, Any]]:
        """Reports of those that are held, in the order of their first rows."""
        return self._reports(len(self._sequences))

    def summary(self, task: Task) -> dict[str, Any]:
        """What the last record says: nothing is counted after it."""
        self.summed_up = True
        said: dict[str, Any] = {
            "rows_in": self.rows,
            "scored": self.rows - self.failed,
            "failed": self.failed,
            "sha256": self._digest.hexdigest(),
        }
        if task.name == "perplexity":
            said["corpus"] = self.corpus.report(task.log_base)
        return said

    def _reports(self, count: int) -> list[dict[str, Any]]:
        names = list(self._sequences)[:count] if count > 0 else []
        return [
            {"sequence": name, **self._sequences.pop(name).report(self._log_base)} for name in names
        ]
