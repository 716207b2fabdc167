"""How far a bundle's answers are from the trained weights in float64, whatever its precision.

Verification asks whether the graphs compute what they should from the weights they hold; this asks
what storing those weights in fewer bits has cost.

    KL = mean over rows of  sum over targets of  p (log p - log q),   p trained, q served
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from hsoftmax import bundle, models
from hsoftmax.exporter.errors import ExportError, VerificationError
from hsoftmax.models.arrays import Array, Float32, Float64

LogProbs = Callable[[Float32], Array]
RowsFrom = Literal["drawn", "calibration"]

_VALUES_AT_ONCE = 1 << 24  # of one float64 matrix of log-probabilities
_MOST_VALUES = 1 << 28  # that a calibration may compare: a minute or so
_DRAWN_ROWS = 64
_LEAST_ROWS = 4
_ORDINARY = 10.0  # largest logit of the rows drawn here
_LARGEST_STATE = 1e18  # a hidden value whose products still fit in float32


def accuracy_rows(model: models.Model, calibration: Path | None) -> dict[RowsFrom, Float32]:
    """The rows to measure with: drawn ones and, if there is such a file, its own."""
    if isinstance(model, models.SparseBlockDot):
        if calibration is not None:
            raise ExportError(f"{calibration}: expected a softmax to calibrate, got SparseBlockDot")
        return {}
    rows: dict[RowsFrom, Float32] = {"drawn": drawn_rows(model)}
    if calibration is not None:
        rows["calibration"] = calibration_rows(calibration, model)
    return rows


def expect_accuracy(accuracy: Sequence[bundle.Accuracy], max_error: float | None) -> None:
    """Raise VerificationError if any answer is further off than is let through."""
    if max_error is None:
        return
    if not accuracy:
        raise VerificationError("max error: expected a softmax to compare, got none")
    worst = max(accuracy, key=lambda measured: measured.max_error)
    if worst.max_error > max_error:
        raise VerificationError(
            f"{worst.rows_from} rows: expected within {max_error:g} of the trained log p, "
            f"got {worst.max_error:.2g}"
        )


def drawn_rows(model: models.Softmax, seed: int = 1) -> Float32:
    """Random hidden rows with logits of ordinary size, fewer where the output space is large."""
    rows = max(_LEAST_ROWS, min(_DRAWN_ROWS, _VALUES_AT_ONCE // model.num_targets))
    rng = np.random.default_rng(seed)
    drawn = rng.standard_normal((rows, model.hidden_size), dtype=np.float32)
    largest = models.reference(model).largest_logit(model, drawn) or 1
    return drawn * np.float32(min(1.0, _ORDINARY / largest))


def calibration_rows(path: Path, model: models.Softmax) -> Float32:
    """The hidden rows in a `.npy` file; of too many, evenly spread ones.

    Raises:
        ExportError: not such a file, a wrong width, no row, or a value that is no hidden state.
    """
    rows = _mapped(path)
    if rows.ndim != 2 or rows.shape[1] != model.hidden_size or not len(rows):
        raise ExportError(
            f"{path}: expected [rows, {model.hidden_size}] hidden states, got {list(rows.shape)}"
        )
    most = max(_LEAST_ROWS, _MOST_VALUES // model.num_targets)
    chosen = np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(np.int64)
    hidden = np.asarray(rows[chosen])
    good = np.isfinite(hidden) & (np.abs(hidden) <= _LARGEST_STATE)
    if not good.all():
        row, at = (int(i) for i in np.argwhere(~good)[0])
        raise ExportError(
            f"{path}: expected finite values up to {_LARGEST_STATE:.0e}, "
            f"got {hidden[row, at]} in row {chosen[row]}"
        )
    return hidden.astype(np.float32)


def measure_accuracy(
    model: models.Softmax, log_probs: LogProbs, hidden: Float32, rows_from: RowsFrom
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


def _mapped(path: Path) -> Array:
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        raise ExportError(f"{path}: expected a .npy file of hidden states, got none") from None
    if not isinstance(rows, np.ndarray) or rows.dtype.kind != "f":
        got = rows.dtype if isinstance(rows, np.ndarray) else "several arrays"
        raise ExportError(f"{path}: expected one array of floats, got {got}")
    return rows


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
    difference = _difference(wanted, got)
    errors = np.abs(difference)
    return (
        float(errors.max()),
        float(errors.mean()),
        float((np.exp(wanted) * difference).sum()),
        _agreement(wanted, got, 1),
        _agreement(wanted, got, 10),
    )


def _difference(wanted: Float64, got: Float64) -> Float64:
    """wanted - got: 0 where both are -inf, as large as JSON can say where one of them is."""
    with np.errstate(invalid="ignore"):
        difference = np.where(wanted == got, 0.0, wanted - got)
    largest = float(np.finfo(np.float32).max)
    return np.nan_to_num(difference, nan=largest, posinf=largest, neginf=-largest)


def _agreement(wanted: Float64, got: Float64, k: int) -> float:
    """The part of the k likeliest targets that both have in common."""
    k = min(k, len(wanted))
    best = [set(np.argpartition(-row, k - 1)[:k].tolist()) for row in (wanted, got)]
    return len(best[0] & best[1]) / k
