"""Measures how far a bundle's log-probabilities are from those of the trained weights in float64.

Verification checks that the graphs compute correctly with the weights they hold; this module
measures the error that comes from storing those weights in fewer bits.

    KL = mean over rows of  sum over targets of  p (log p - log q),   p trained, q served
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from hsoftmax import bundle, models
from hsoftmax.exporter.errors import ExportError, SourceError, VerificationError
from hsoftmax.exporter.files.npy_files import map_npy
from hsoftmax.models.arrays import Array, Float32, Float64

LogProbsFunction = Callable[[Float32], Array]
RowsFrom = Literal["drawn", "calibration"]

_MAX_VALUES_PER_CHUNK = 1 << 24  # of a float64 matrix of log-probabilities
_MAX_CALIBRATION_VALUES = 1 << 28  # log-probabilities compared for a calibration: about a minute
_MAX_DRAWN_ROWS = 64
_MIN_ROWS = 4
_MAX_DRAWN_LOGIT = 10.0  # drawn rows are scaled down to this largest logit
_MAX_HIDDEN_VALUE = 1e18  # products of larger hidden values may exceed float32


def accuracy_rows(model: models.Model, calibration: Path | None) -> dict[RowsFrom, Float32]:
    """Return the hidden rows to measure with: drawn ones and, if given, the calibration file's."""
    if isinstance(model, models.SparseBlockDot):
        if calibration is not None:
            raise ExportError(f"{calibration}: expected a softmax to calibrate, got SparseBlockDot")
        return {}
    rows: dict[RowsFrom, Float32] = {"drawn": drawn_rows(model)}
    if calibration is not None:
        rows["calibration"] = calibration_rows(calibration, model)
    return rows


def expect_accuracy(accuracy: Sequence[bundle.Accuracy], max_error: float | None) -> None:
    """Raise VerificationError if the error of any row set exceeds `max_error`."""
    if max_error is None:
        return
    if not accuracy:
        raise VerificationError("max error: expected a softmax to compare, got none")
    worst = max(accuracy, key=lambda one: one.max_error)
    if worst.max_error > max_error:
        raise VerificationError(
            f"{worst.rows_from} rows: expected within {max_error:g} of the trained log p, "
            f"got {worst.max_error:.2g}"
        )


def drawn_rows(model: models.Softmax, seed: int = 1) -> Float32:
    """Draw random hidden rows with ordinary logits; fewer rows for a large output space."""
    rows = max(_MIN_ROWS, min(_MAX_DRAWN_ROWS, _MAX_VALUES_PER_CHUNK // model.num_targets))
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((rows, model.hidden_size), dtype=np.float32)
    largest = models.reference(model).largest_logit(model, hidden) or 1
    return hidden * np.float32(min(1.0, _MAX_DRAWN_LOGIT / largest))


def calibration_rows(path: Path, model: models.Softmax) -> Float32:
    """Read the hidden rows of a `.npy` file; of too many rows, use evenly spaced ones.

    Raises:
        ExportError: not such a file, a wrong width, no row, or a NaN, infinite or huge value.
    """
    rows = _map_hidden_file(path)
    if rows.ndim != 2 or rows.shape[1] != model.hidden_size or not len(rows):
        raise ExportError(
            f"{path}: expected [rows, {model.hidden_size}] hidden states, got {list(rows.shape)}"
        )
    max_rows = max(_MIN_ROWS, _MAX_CALIBRATION_VALUES // model.num_targets)
    indices = np.linspace(0, len(rows) - 1, min(max_rows, len(rows))).astype(np.int64)
    hidden = np.asarray(rows[indices])
    is_valid = np.isfinite(hidden) & (np.abs(hidden) <= _MAX_HIDDEN_VALUE)
    if not is_valid.all():
        row, column = (int(i) for i in np.argwhere(~is_valid)[0])
        raise ExportError(
            f"{path}: expected finite values up to {_MAX_HIDDEN_VALUE:.0e}, "
            f"got {hidden[row, column]} in row {indices[row]}"
        )
    return hidden.astype(np.float32)


def measure_accuracy(
    model: models.Softmax, log_probs: LogProbsFunction, hidden: Float32, rows_from: RowsFrom
) -> bundle.Accuracy:
    """Compare `log_probs` with the float64 reference over these rows."""
    measures = list(_compare_rows(model, log_probs, hidden))
    worst, mean, kl, top1, top10 = (np.array(column) for column in zip(*measures, strict=True))
    return bundle.Accuracy(
        rows_from=rows_from,
        rows=len(hidden),
        max_error=float(worst.max()),
        mean_error=float(mean.mean()),
        kl=float(kl.mean()),
        top1_agreement=float(top1.mean()),
        top10_agreement=float(top10.mean()),
    )


def _map_hidden_file(path: Path) -> Array:
    try:
        rows = map_npy(path)
    except SourceError as error:
        raise ExportError(
            f"{path}: expected a .npy file of hidden states, got none: {error}"
        ) from None
    if rows.dtype.kind != "f":
        raise ExportError(f"{path}: expected one array of floats, got {rows.dtype}")
    return rows


def _compare_rows(
    model: models.Softmax, log_probs: LogProbsFunction, hidden: Float32
) -> Iterator[tuple[float, float, float, float, float]]:
    reference = models.reference(model)
    rows_per_chunk = max(1, _MAX_VALUES_PER_CHUNK // model.num_targets)
    for start in range(0, len(hidden), rows_per_chunk):
        chunk = hidden[start : start + rows_per_chunk]
        for expected, actual in zip(
            reference.log_probs(model, chunk), log_probs(chunk), strict=True
        ):
            yield _compare_row(expected, actual.astype(np.float64))


def _compare_row(expected: Float64, actual: Float64) -> tuple[float, float, float, float, float]:
    difference = _difference(expected, actual)
    errors = np.abs(difference)
    return (
        float(errors.max()),
        float(errors.mean()),
        float((np.exp(expected) * difference).sum()),
        _agreement(expected, actual, 1),
        _agreement(expected, actual, 10),
    )


def _difference(expected: Float64, actual: Float64) -> Float64:
    """Return expected - actual: 0 where both are -inf, ±3.4e38 where one of them is."""
    with np.errstate(invalid="ignore"):
        difference = np.where(expected == actual, 0.0, expected - actual)
    largest = float(np.finfo(np.float32).max)
    return np.nan_to_num(difference, nan=largest, posinf=largest, neginf=-largest)


def _agreement(expected: Float64, actual: Float64, k: int) -> float:
    """Return the share of the k most likely targets that both distributions have in common."""
    k = min(k, len(expected))
    best = [set(np.argpartition(-row, k - 1)[:k].tolist()) for row in (expected, actual)]
    return len(best[0] & best[1]) / k
