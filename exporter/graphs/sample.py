"""sample: draw targets by walking the path, a uniform number a level; never the full distribution.

    position = first with cumsum(softmax(block))[position] > u * sum(softmax(block))

Under padding="theano" padding rows keep probability but are never drawn: each step is conditional
on a row with a target below it. log_prob is still what target_log_prob says.
"""

import spox.opset.ai.onnx.v21 as op
from spox import Var

from hsoftmax.models import HierarchicalSoftmax

from .block_visits import Visit, visit_blocks
from .categorical import draw
from .levels import LevelWeights, levels
from .log_probs import cluster_log_probs
from .ops import arange, column, count, integer, pick, vector
from .weights import Weights


def sample(
    model: HierarchicalSoftmax, weights: Weights, hidden: Var, noise: Var
) -> tuple[Var, Var]:
    """hidden [B, H], noise [B, S, levels] in [0, 1) -> target [B, S], log_prob [B, S]."""
    shape = op.shape(noise, start=0, end=2)
    row = vector(op.expand(column(arange(count(hidden))), shape))
    top, *rest = levels(model, weights)
    clusters = cluster_log_probs(model, weights, hidden)[0]
    drawn, log_prob = _draw(top, clusters, top.alive(), row, _uniform(noise, 0))
    for level in rest:
        drawn, local = _draw_below(level, hidden, row, drawn, _uniform(noise, level.number))
        log_prob = op.add(log_prob, local)
    if model.target_rows is not None:
        drawn = op.gather(weights["row_target"], drawn)
    return op.reshape(drawn, shape), op.reshape(log_prob, shape)


def _uniform(noise: Var, level: int) -> Var:
    return vector(op.gather(noise, integer(level), axis=2))


def _draw_below(
    level: LevelWeights, hidden: Var, row: Var, block: Var, uniform: Var
) -> tuple[Var, Var]:
    """Draw a row of `level` below each drawn row of the level above: (row, local log p), [P]."""

    def choose(visit: Visit, call: Var, uniform: Var) -> tuple[Var, Var]:
        start, end = visit.bounds()
        alive = level.alive(start, end)
        position, log_prob = _draw(level, visit.by_call(), alive, call, uniform)
        return op.add(start, position), log_prob

    below, log_prob = visit_blocks(
        level, hidden, row, block, lambda call: (call, uniform), choose, types=(int, float)
    )
    return below, log_prob


def _draw(
    level: LevelWeights, log_probs: Var, alive: Var | None, call: Var, uniform: Var
) -> tuple[Var, Var]:
    """For each pair, a position in its call's log_probs [calls, K], and its log p."""
    # Normalised anew: all that is allowed may be too unlikely beside the padding for its exp.
    allowed = log_probs if alive is None else op.log_softmax(op.add(log_probs, alive))
    position, _ = draw(allowed, call, uniform, size=int(level.level.block_sizes.max()))
    return position, pick(log_probs, call, position)
