"""The k best of several lists of candidates: (log p, target), in descending order."""

import spox.opset.ai.onnx.v21 as op
from spox import Var

from .ops import concat, integer, ints, length, real


def merge(log_prob: Var, target: Var, k: Var) -> tuple[Var, Var]:
    """[m, candidates] -> the k best [m, k], ties by ascending target."""
    target, by_target = op.top_k(target, length(target, axis=1), largest=0)
    log_prob, best = op.top_k(op.gather_elements(log_prob, by_target, axis=1), k)
    return log_prob, op.gather_elements(target, best, axis=1)


def widen(x: Var, k: Var, value: float | int) -> Var:
    """[m, n <= k] -> [m, k], with `value` where there was nothing."""
    fill = real(value) if isinstance(value, float) else integer(value)
    return op.pad(x, concat(ints(0), op.sub(k, length(x, axis=1))), fill, ints(1))
