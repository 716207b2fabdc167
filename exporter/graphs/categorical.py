"""Draws from categorical distributions by inverting the cumulative sum.

position = first with  cumsum(p)[position] > u * sum(p)
"""

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from .ops import count, integer, ints, length, pick, true


def draw(log_probs: Var, logits_row: Var, uniform: Var, *, size: int) -> tuple[Var, Var]:
    """Draw for each pair a position in one row of log_probs: (position [P], its log p [P]).

    Args:
        log_probs: [m, <= size]
        logits_row: [P] the row of log_probs for each pair
        uniform: [P] numbers in [0, 1)
    """
    # float64, because rounding errors of a float32 sum of many terms would bias the draws.
    cumulative = op.cumsum(op.cast(op.exp(log_probs), to=np.float64), integer(1))
    last = op.expand(op.sub(length(cumulative, axis=1), ints(1)), op.shape(logits_row))
    threshold = op.mul(pick(cumulative, logits_row, last), op.cast(uniform, to=np.float64))
    position = _first_above(cumulative, logits_row, threshold, last, size)
    return position, pick(log_probs, logits_row, position)


def _first_above(cumulative: Var, logits_row: Var, threshold: Var, last: Var, size: int) -> Var:
    """Return the first position whose value exceeds the threshold, by binary search."""

    def halve(i: Var, condition: Var, low: Var, high: Var) -> list[Var]:
        middle = op.div(op.add(low, high), integer(2))
        above = op.greater(pick(cumulative, logits_row, middle), threshold)
        next_low = op.min([op.add(middle, integer(1)), high])
        return [true(), op.where(above, low, next_low), op.where(above, middle, high)]

    # The number of iterations reads the threshold, which keeps it out of the body: see
    # `distinct_blocks._map_elements`.
    steps = op.mul(op.min([count(threshold), integer(1)]), integer((size - 1).bit_length()))
    low = op.mul(last, integer(0))
    return op.loop(steps, v_initial=[low, last], body=halve)[0]
