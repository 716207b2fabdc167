"""Draw a position from a distribution with one uniform number.

position = first with  cumsum(p)[position] > u * sum(p)
"""

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from .ops import count, integer, ints, length, pick, yes


def draw(log_probs: Var, call: Var, uniform: Var, *, size: int) -> tuple[Var, Var]:
    """For each pair, a position in its call's row of log_probs [calls, <= size], and its log p."""
    # float64, because summing many small float32 terms would favour some positions over others.
    cumulative = op.cumsum(op.cast(op.exp(log_probs), to=np.float64), integer(1))
    last = op.expand(op.sub(length(cumulative, axis=1), ints(1)), op.shape(call))
    threshold = op.mul(pick(cumulative, call, last), op.cast(uniform, to=np.float64))
    position = _first_above(cumulative, call, threshold, last, size)
    return position, pick(log_probs, call, position)


def _first_above(cumulative: Var, call: Var, threshold: Var, last: Var, size: int) -> Var:
    """Binary search in ascending rows: the first position whose value exceeds the threshold."""

    def halve(i: Var, going: Var, low: Var, high: Var) -> list[Var]:
        middle = op.div(op.add(low, high), integer(2))
        above = op.greater(pick(cumulative, call, middle), threshold)
        higher = op.min([op.add(middle, integer(1)), high])
        return [yes(), op.where(above, low, higher), op.where(above, middle, high)]

    # The number of passes reads the threshold, which keeps it out of the body: see visits.py.
    steps = op.mul(op.min([count(threshold), integer(1)]), integer((size - 1).bit_length()))
    low = op.mul(last, integer(0))
    return op.loop(steps, v_initial=[low, last], body=halve)[0]
