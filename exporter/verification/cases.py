"""Verification cases for a softmax: hidden rows, the reference's results, and tolerances.

Rows are drawn at three scales: ordinary logits, logits of about ±100, and logits of about ±1e4,
where a softmax that leaves log space overflows. The error of float32 logits is proportional to
their size, and so is the tolerance; rounding errors of many steps add up as the square root of
their number.

Graphs over int8 levels round hidden rows to whole steps. The three cases use rows of whole steps,
so the same tolerance holds; a fourth case uses other rows. There a hidden value may be off by half
a step, a logit of row w by |w| (the sum of its absolute values) half steps, and a local log p by
twice the worst of its block's logits:

    |Δ log p| ≤ sum over levels of  step * largest |w|          step = max |hidden| / 63
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hsoftmax import bundle, models
from hsoftmax.exporter.graphs.hidden_states import QUANTISED_MAX
from hsoftmax.models.arrays import Float32, Float64

TOLERANCE = 1e-5  # in log p, on ordinary logits
_RELATIVE_TOLERANCE = 1e-6  # of the largest logit, times the root of the number of steps
_LOGIT_SCALES = {"ordinary": 10.0, "large": 100.0, "extreme": 1e4}
_NUM_ROWS = 4
_MAX_INNER_NODES = 100
_MAX_ROWS_PER_CHUNK = 65_536


@dataclass(frozen=True)
class SoftmaxCase:
    """Hidden rows with logits of one scale, and the reference's results for them."""

    name: str
    hidden: Float32
    tolerance: float
    log_probs: Float64
    cluster_log_probs: Float64 | None  # None for a family without clusters
    rng: np.random.Generator
    uniforms: int  # uniform numbers per sample, one for each step of a path
    inner_log_probs: Float64 | None = None  # [rows, inner nodes], if the model has such


def softmax_cases(
    model: models.Softmax,
    precision: bundle.Precision,
    uniforms: int,
    rng: np.random.Generator,
) -> Iterator[SoftmaxCase]:
    """Yield every case for a model; `precision` is that of the stored weights."""
    hidden = rng.standard_normal((_NUM_ROWS, model.hidden_size)).astype(np.float32)
    is_rounded = precision == "int8" and isinstance(model, models.HierarchicalSoftmax)
    representable = _round_to_steps(hidden) if is_rounded else hidden
    for name, scale in _LOGIT_SCALES.items():
        yield _build_case(
            model, name, _scale_to_logit(model, representable, scale), 0.0, rng, uniforms
        )
    if isinstance(model, models.HierarchicalSoftmax) and precision == "int8":
        rounded = _scale_to_logit(model, hidden, _LOGIT_SCALES["ordinary"])
        yield _build_case(model, "rounded", rounded, rounding_error(model, rounded), rng, uniforms)


def rounding_error(model: models.HierarchicalSoftmax, hidden: Float32) -> float:
    """Return an upper bound of |Δ log p| from rounding these rows to whole steps."""
    step = float(np.abs(hidden).max(initial=0.0)) / QUANTISED_MAX
    return step * sum(_largest_row_sum(level.weight) for level in model.levels)


def _build_case(
    model: models.Softmax,
    name: str,
    hidden: Float32,
    allowance: float,
    rng: np.random.Generator,
    uniforms: int,
) -> SoftmaxCase:
    reference = models.reference(model)
    relative_tolerance = _RELATIVE_TOLERANCE * uniforms**0.5
    return SoftmaxCase(
        name,
        hidden,
        max(TOLERANCE, relative_tolerance * reference.largest_logit(model, hidden)) + allowance,
        reference.log_probs(model, hidden),
        None if model.num_clusters is None else reference.cluster_log_probs(model, hidden),
        rng,
        uniforms,
        _inner_log_probs(model, hidden),
    )


def _inner_log_probs(model: models.Softmax, hidden: Float32) -> Float64 | None:
    """Return log p of some inner nodes, the first ones, or None if the model has none."""
    if not isinstance(model, models.HierarchicalSoftmax) or not model.num_inner:
        return None
    nodes = min(model.num_inner, _MAX_INNER_NODES)
    row, node = np.divmod(np.arange(len(hidden) * nodes), nodes)
    numbers = model.num_targets + node
    log_prob = models.hierarchical_softmax.target_log_prob(model, hidden, row, numbers)
    return log_prob.reshape(len(hidden), nodes)


def _scale_to_logit(model: models.Softmax, hidden: Float32, scale: float) -> Float32:
    """Return the rows scaled to a largest logit of `scale`."""
    return hidden * np.float32(scale / (models.reference(model).largest_logit(model, hidden) or 1))


def _round_to_steps(hidden: Float32) -> Float32:
    peak = np.abs(hidden).max(axis=1, keepdims=True)
    rounded: Float32 = np.rint(hidden / peak * QUANTISED_MAX) / np.float32(QUANTISED_MAX)
    return rounded


def _largest_row_sum(weight: Float32) -> float:
    """Return the largest sum of absolute values of a row."""
    starts = range(0, len(weight), _MAX_ROWS_PER_CHUNK)
    return max(float(np.abs(weight[i : i + _MAX_ROWS_PER_CHUNK]).sum(axis=1).max()) for i in starts)
