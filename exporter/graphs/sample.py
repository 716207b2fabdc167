"""Lowers sample: draws targets by walking down the levels, without the full distribution.

    position = first with cumsum(softmax(block))[position] > u * sum(softmax(block))

One uniform number per level is needed. With padding="theano", padding rows keep probability but are
never drawn: each draw is conditional on a row with a target below it. log_prob still equals the
result of target_log_prob.
"""

import spox.opset.ai.onnx.v21 as op
from spox import Var

from hsoftmax.models import HierarchicalSoftmax

from .categorical import draw
from .distinct_blocks import BlockVisit, visit_blocks
from .level_weights import LevelWeights, levels
from .log_probs import cluster_log_probs
from .ops import arange, column, count, integer, pick, vector
from .weights import Weights


def sample(
    model: HierarchicalSoftmax, weights: Weights, hidden: Var, noise: Var
) -> tuple[Var, Var]:
    """hidden [B, H], noise [B, S, levels] in [0, 1) -> target [B, S], log_prob [B, S]."""
    shape = op.shape(noise, start=0, end=2)
    row = vector(op.expand(column(arange(count(hidden))), shape))
    top_level, *rest = levels(model, weights)
    clusters = cluster_log_probs(model, weights, hidden)[0]
    level_row, log_prob = _draw_position(
        top_level, clusters, top_level.alive(), row, _uniform(noise, 0)
    )
    for level in rest:
        level_row, local = _draw_child(level, hidden, row, level_row, _uniform(noise, level.number))
        log_prob = op.add(log_prob, local)
    if model.target_rows is not None:
        level_row = op.gather(weights["row_target"], level_row)
    return op.reshape(level_row, shape), op.reshape(log_prob, shape)


def _uniform(noise: Var, level: int) -> Var:
    return vector(op.gather(noise, integer(level), axis=2))


def _draw_child(
    level: LevelWeights, hidden: Var, row: Var, block: Var, uniform: Var
) -> tuple[Var, Var]:
    """Draw a child of each drawn row [P] of the level above: (row, log p within its block), [P]."""

    def select(visit: BlockVisit, logits_row: Var, uniform: Var) -> tuple[Var, Var]:
        start, end = visit.bounds()
        alive = level.alive(start, end)
        position, log_prob = _draw_position(
            level, visit.log_prob_matrix(), alive, logits_row, uniform
        )
        return op.add(start, position), log_prob

    child_row, log_prob = visit_blocks(
        level,
        hidden,
        row,
        block,
        lambda logits_row: (logits_row, uniform),
        select,
        types=(int, float),
    )
    return child_row, log_prob


def _draw_position(
    level: LevelWeights, log_probs: Var, alive: Var | None, logits_row: Var, uniform: Var
) -> tuple[Var, Var]:
    """Draw for each pair a position in its row of log_probs [m, K]: (position, its log p), [P]."""
    # Normalise again: without it, exp of all allowed rows may underflow next to padding rows.
    distribution = log_probs if alive is None else op.log_softmax(op.add(log_probs, alive))
    position, _ = draw(distribution, logits_row, uniform, size=int(level.level.block_sizes.max()))
    return position, pick(log_probs, logits_row, position)
