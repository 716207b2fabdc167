"""How far a bundle's answers are from the trained weights in float64, whatever its precision.

Verification asks whether the graphs compute what they should from the weights they hold; this asks
what storing those weights in fewer bits has cost.

    KL = mean over rows of  sum over targets of  p (log p - log q),   p trained, q served
"""

from collections.abc import Callable, Iterator

import numpy as np

import bundle
import models
from models.arrays import Array, Float32, Float64

LogProbs = Callable[[Float32], Array]

_VALUES_AT_ONCE = 1 << 24  # of one float64 matrix of log-probabilities
_DRAWN_ROWS = 64
_ORDINARY = 10.0  # largest logit of the rows drawn here


def drawn_rows(model: models.Softmax, seed: int = 1) -> Float32:
    """Random hidden rows with logits of ordinary size, fewer where the output space is large."""
    rows = max(4, min(_DRAWN_ROWS, _VALUES_AT_ONCE // model.num_targets))
    rng = np.random.default_rng(seed)
    drawn = rng.standard_normal((rows, model.hidden_size), dtype=np.float32)
    largest = models.reference(model).largest_logit(model, drawn) or 1
    return drawn * np.float32(min(1.0, _ORDINARY / largest))


def measure_accuracy(
    model: models.Softmax, log_probs: LogProbs, hidden: Float32, rows_from: str
) -> bundle.Accuracy:
    """Compare `log_probs` with the float64 reference over these rows."""
    parts = list(_compared(model, log_probs, hidden))
    worst, mean, kl, top1, top10 = (np.array(column) for column in zip(*parts, strict=True))
    return bundle.Accuracy(
        rows_from=rows_from,
        rows=len(hidden),
        max_error=float(worst.max()),
        mean_error=float(mean.mean()),
        kl=float(kl.mean()),
        top1_agreement=float(top1.mean()),
        top10_agreement=float(top10.mean()),
    )


def _compared(
    model: models.Softmax, log_probs: LogProbs, hidden: Float32
) -> Iterator[tuple[float, float, float, float, float]]:
    reference = models.reference(model)
    at_once = max(1, _VALUES_AT_ONCE // model.num_targets)
    for start in range(0, len(hidden), at_once):
        some = hidden[start : start + at_once]
        for wanted, got in zip(reference.log_probs(model, some), log_probs(some), strict=True):
            yield _compare_row(wanted, got.astype(np.float64))


def _compare_row(wanted: Float64, got: Float64) -> tuple[float, float, float, float, float]:
    errors = np.abs(wanted - got)
    return (
        float(errors.max()),
        float(errors.mean()),
        float((np.exp(wanted) * (wanted - got)).sum()),
        _agreement(wanted, got, 1),
        _agreement(wanted, got, 10),
    )


def _agreement(wanted: Float64, got: Float64, k: int) -> float:
    """The part of the k likeliest targets that both have in common."""
    k = min(k, len(wanted))
    best = [set(np.argpartition(-row, k - 1)[:k].tolist()) for row in (wanted, got)]
    return len(best[0] & best[1]) / k
