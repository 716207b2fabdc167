"""Perplexity: exp of the mean of -log p, over a sequence or over all rows.

    perplexity = exp(-(sum of log p) / words)

Words are the scored rows whose target is in the vocabulary. Sums are kept in nats. Reports give
log-probabilities in the task's unit; a perplexity has no unit.
"""

import math
from dataclasses import dataclass

import numpy as np

from .requirements import RowId
from .results import RowResults
from .row_batch import RowBatch


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums over some rows; `log_prob` is in nats."""

    words: int = 0
    oov: int = 0
    failed: int = 0
    log_prob: float = 0.0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.words + other.words,
            self.oov + other.oov,
            self.failed + other.failed,
            self.log_prob + other.log_prob,
        )

    @property
    def perplexity(self) -> float | None:
        """The perplexity, or None if there is no word."""
        if not self.words:
            return None
        mean = -self.log_prob / self.words
        return math.exp(mean) if mean < 700 else math.inf

    def report(self, log_base: float | None) -> dict[str, float | None]:
        """Returns the sums and the perplexity; `log_base` None is e."""
        unit = 1.0 if log_base is None else math.log(log_base)
        return {
            "words": self.words,
            "oov": self.oov,
            "failed": self.failed,
            "log_prob": self.log_prob / unit,
            "perplexity": self.perplexity,
        }


def tally_sequences(
    rows: RowBatch, results: RowResults, log_base: float | None
) -> dict[RowId, Tally]:
    """Returns the sums of each sequence in a batch, in the order of their first rows."""
    unit = 1.0 if log_base is None else math.log(log_base)
    log_prob = np.full(len(rows), np.nan)
    if len(results.scored):
        log_prob[results.scored] = np.asarray(results.columns["log_prob"], dtype=np.float64) * unit
    tallies: dict[RowId, Tally] = {}
    for i, (sequence, value) in enumerate(zip(rows.sequences, log_prob.tolist(), strict=True)):
        if i in results.row_errors:
            tally = Tally(failed=1)
        elif i in rows.oov:
            tally = Tally(oov=1)
        else:
            tally = Tally(words=1, log_prob=value)
        tallies[sequence] = tallies.get(sequence, Tally()) + tally
    return tallies
