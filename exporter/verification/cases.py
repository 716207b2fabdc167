"""Hidden rows to verify a softmax with, the reference's answers, and how near graphs must come.

Rows are drawn at three sizes: ordinary logits, logits of about ±100, and of about ±1e4, where a
softmax that leaves log space overflows. float32 logits carry an error in proportion to their size,
and so does the tolerance; over many steps roundings add up as their root.

Graphs over int8 weights round hidden rows to whole steps. These three cases are drawn in whole
steps, so they are held to the same tolerance; a fourth is not. There a hidden value may be off by
half a step, a logit of row w by |w| (the sum of its absolute values) half steps, and a local log p
by twice the worst of its block's logits:

    |Δ log p| ≤ sum over levels of  step * largest |w|          step = max |hidden| / 63
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hsoftmax import bundle, models
from hsoftmax.exporter.graphs.hidden_states import STEPS
from hsoftmax.models.arrays import Float32, Float64

TOLERANCE = 1e-5  # in log p, on ordinary logits
_RELATIVE = 1e-6  # of the largest logit, times the root of the steps whose roundings add up
_SIZES = {"ordinary": 10.0, "large": 100.0, "extreme": 1e4}
_ROWS = 4
_WEIGHTS_AT_ONCE = 65_536  # rows


@dataclass(frozen=True)
class Case:
    """Hidden rows with logits of about a given size, and the reference's answers to them."""

    name: str
    hidden: Float32
    tolerance: float
    log_probs: Float64
    cluster_log_probs: Float64 | None  # of a family that has clusters
    rng: np.random.Generator
    uniforms: int  # that one sample takes: one a level


def cases(
    model: models.Softmax,
    precision: bundle.StoredPrecision,
    uniforms: int,
    rng: np.random.Generator,
) -> Iterator[Case]:
    """Every case for a model that is stored so; what its weights stand for is the model's."""
    drawn = rng.standard_normal((_ROWS, model.hidden_size)).astype(np.float32)
    exact = drawn if precision != "int8" else _in_whole_steps(drawn)
    for name, size in _SIZES.items():
        yield _case(model, name, _with_logits(model, exact, size), 0.0, rng, uniforms)
    if precision == "int8" and isinstance(model, models.HierarchicalSoftmax):
        hidden = _with_logits(model, drawn, _SIZES["ordinary"])
        yield _case(model, "rounded", hidden, rounding_error(model, hidden), rng, uniforms)


def rounding_error(model: models.HierarchicalSoftmax, hidden: Float32) -> float:
    """A bound on |Δ log p| from rounding these rows to whole steps."""
    step = float(np.abs(hidden).max(initial=0.0)) / STEPS
    return step * sum(_largest_sum(level.weight) for level in model.levels)


def _case(
    model: models.Softmax,
    name: str,
    hidden: Float32,
    allowance: float,
    rng: np.random.Generator,
    uniforms: int,
) -> Case:
    reference = models.reference(model)
    relative = _RELATIVE * uniforms**0.5
    return Case(
        name,
        hidden,
        max(TOLERANCE, relative * reference.largest_logit(model, hidden)) + allowance,
        reference.log_probs(model, hidden),
        None if model.num_clusters is None else reference.cluster_log_probs(model, hidden),
        rng,
        uniforms,
    )


def _with_logits(model: models.Softmax, hidden: Float32, size: float) -> Float32:
    """The rows scaled to a largest logit of about this size."""
    return hidden * np.float32(size / (models.reference(model).largest_logit(model, hidden) or 1))


def _in_whole_steps(hidden: Float32) -> Float32:
    peak = np.abs(hidden).max(axis=1, keepdims=True)
    whole: Float32 = np.rint(hidden / peak * STEPS) / np.float32(STEPS)
    return whole


def _largest_sum(weight: Float32) -> float:
    """The largest sum of absolute values of a row."""
    parts = range(0, len(weight), _WEIGHTS_AT_ONCE)
    return max(float(np.abs(weight[i : i + _WEIGHTS_AT_ONCE]).sum(axis=1).max()) for i in parts)
