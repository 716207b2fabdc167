"""Lowers top_k: an exact search for the k most likely targets that opens few blocks.

A leaf's log p is at most that of its ancestors, so a block of the last level needs to be opened
only while its parent's log p is at least the k-th best so far. Each row opens its blocks in
descending order of that bound, one per round; rows that open the same block in a round share one
read of its weights. The result of a row does not depend on the other rows.

A row with a flat distribution would open all blocks one by one, which costs more than one pass over
the weights. After a few blocks, the number of bounds not below the k-th best limits the number of
blocks still worth opening. If that number is large, the row is recomputed from its full
distribution, and its `blocks` is the number of all blocks.
"""

from dataclasses import dataclass

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from hsoftmax.models import HierarchicalSoftmax

from .distinct_blocks import BlockVisit, visit_blocks
from .level_weights import LevelWeights, levels
from .log_probs import log_probs, row_log_probs
from .ops import (
    as_int,
    between,
    column,
    concat,
    count,
    full,
    integer,
    ints,
    length,
    pick,
    positions,
    real,
    scalar,
    vector,
)
from .top_k_merge import any_true, merge_top_k, pad_to_k, recompute_rows, scatter_rows
from .weights import Weights

_MIN_TARGETS_PER_K = 64  # a larger k is computed from the full distribution
_BLOCKS_PER_AFFORDABLE = 16  # opening one block in 16 always costs less than the full distribution
_BLOCKS_PER_TRIAL = 128  # a row opens one block in 128 before it may be recomputed densely
_MIN_TRIAL_BLOCKS = 4


@dataclass(frozen=True)
class BlockLimits:
    """The numbers of blocks that a row may open."""

    unlimited: Var  # scalar bool: True if results must be exact
    free_blocks: Var  # scalar: number of blocks opened without a check of the cost
    num_ranked: Var  # [1] number of blocks sorted by bound: one more than a row opens, or all


def top_k(
    model: HierarchicalSoftmax, weights: Weights, hidden: Var, k: Var, max_blocks: Var
) -> tuple[Var, ...]:
    """hidden [B, H], k [1], max_blocks [1] -> log_prob, target [B, k], blocks, exact [B].

    max_blocks 0 means no limit. A row with a limit still opens blocks until it has k targets.
    """
    if len(model.levels) == 1:
        return _dense(model, weights, hidden, k)
    limits = _limits(model, k, max_blocks)
    is_large_k = op.greater(
        op.mul(scalar(k), integer(_MIN_TARGETS_PER_K)), integer(model.num_targets)
    )
    return tuple(
        op.if_(
            op.and_(limits.unlimited, is_large_k),
            then_branch=lambda: _dense(model, weights, hidden, k),
            else_branch=lambda: _search(model, weights, hidden, k, limits),
        )
    )


def _dense(
    model: HierarchicalSoftmax, weights: Weights, hidden: Var, k: Var
) -> tuple[Var, Var, Var, Var]:
    """Compute top_k from the full distribution; there ties go to the lower target."""
    log_prob, target = op.top_k(log_probs(model, weights, hidden)[0], k)
    batch = length(hidden)
    return log_prob, target, full(batch, model.levels[-1].num_blocks), full(batch, True)


def _limits(model: HierarchicalSoftmax, k: Var, max_blocks: Var) -> BlockLimits:
    blocks, max_opened = model.levels[-1].num_blocks, scalar(max_blocks)
    unlimited = op.or_(
        op.equal(max_opened, integer(0)), op.greater_or_equal(max_opened, integer(blocks))
    )
    # A row with a limit that lacks k targets goes on; a block has a target unless all is padding.
    max_reached = op.add(op.add(max_opened, scalar(k)), integer(_blocks_without_target(model)))
    affordable = max(1, blocks // _BLOCKS_PER_AFFORDABLE)
    num_ranked = op.add(op.where(unlimited, integer(affordable), max_reached), integer(1))
    trial_blocks = integer(min(affordable, max(_MIN_TRIAL_BLOCKS, blocks // _BLOCKS_PER_TRIAL)))
    return BlockLimits(
        unlimited,
        free_blocks=op.where(unlimited, trial_blocks, max_opened),
        num_ranked=vector(op.min([num_ranked, integer(blocks)])),
    )


def _blocks_without_target(model: HierarchicalSoftmax) -> int:
    last = model.levels[-1]
    return last.num_blocks - len(np.unique(last.block_of_row[model.rows]))


def _search(
    model: HierarchicalSoftmax, weights: Weights, hidden: Var, k: Var, limits: BlockLimits
) -> tuple[Var, ...]:
    inner = row_log_probs(model, weights, hidden, depth=len(model.levels) - 1)
    bounds, blocks = op.top_k(inner, limits.num_ranked)
    log_prob, target, opened, exact = _open_blocks(
        model, weights, hidden, k, limits, bounds, blocks
    )
    is_unfinished = op.and_(op.not_(exact), limits.unlimited)
    return recompute_rows(
        lambda rows: _dense(model, weights, rows, k),
        hidden,
        is_unfinished,
        (log_prob, target, opened, exact),
    )


def _open_blocks(
    model: HierarchicalSoftmax,
    weights: Weights,
    hidden: Var,
    k: Var,
    limits: BlockLimits,
    bounds: Var,
    blocks: Var,
) -> tuple[Var, Var, Var, Var]:
    """Open each row's blocks in order, one per round, until no other block can improve it."""

    def body(
        i: Var, condition: Var, active: Var, exact: Var, opened: Var, log_prob: Var, target: Var
    ) -> list[Var]:
        row, num_opened = positions(active), scalar(op.add(i, ints(1)))
        rank = op.expand(i, op.shape(row))
        block_best = _top_k_of_blocks(model, weights, hidden, row, pick(blocks, row, rank), k)
        block_log_prob = op.add(block_best[0], column(pick(bounds, row, rank)))
        merged = merge_top_k(
            concat(op.gather(log_prob, row), block_log_prob, axis=1),
            concat(op.gather(target, row), block_best[1], axis=1),
            k,
        )
        log_prob, target = scatter_rows((log_prob, target), row, merged)
        opened = op.add(opened, op.cast(active, to=np.int64))
        kth = op.reduce_min(log_prob, ints(1), keepdims=0)
        may_improve = _may_improve(model, bounds, num_opened, kth)
        exact = op.or_(exact, op.and_(active, op.not_(may_improve)))
        is_worthwhile = _is_worthwhile(limits, bounds, num_opened, kth)
        active = op.and_(active, op.and_(may_improve, is_worthwhile))
        return [any_true(active), active, exact, opened, log_prob, target]

    batch = length(bounds)  # keeps bounds out of the body: see distinct_blocks
    shape = concat(batch, k)
    start = [
        full(batch, True),
        full(batch, False),
        full(batch, 0),
        full(shape, -np.inf),
        full(shape, model.num_targets),
    ]
    loop = op.loop(cond=any_true(start[0]), v_initial=start, body=body)
    _, exact, opened, log_prob, target = loop
    return log_prob, target, opened, exact


def _may_improve(model: HierarchicalSoftmax, bounds: Var, opened: Var, kth: Var) -> Var:
    """Return bool [B]: an unopened block may hold one of the k best, or tie with the last."""
    has_more = op.less(opened, integer(model.levels[-1].num_blocks))
    bound = op.gather(bounds, op.min([opened, _last_index(bounds)]), axis=1)
    return op.and_(has_more, op.greater_or_equal(bound, kth))


def _is_worthwhile(limits: BlockLimits, bounds: Var, opened: Var, kth: Var) -> Var:
    """Return bool [B]: the row may open another block."""
    last = _last_index(bounds)
    is_affordable = op.and_(limits.unlimited, op.less(op.gather(bounds, last, axis=1), kth))
    lacks_targets = op.and_(op.equal(kth, real(-np.inf)), op.less(opened, last))
    return op.or_(op.less(opened, limits.free_blocks), op.or_(is_affordable, lacks_targets))


def _top_k_of_blocks(
    model: HierarchicalSoftmax, weights: Weights, hidden: Var, row: Var, block: Var, k: Var
) -> tuple[Var, ...]:
    """Return (log p within the block, target), [rows, k]: the k best of one block for each row."""
    level = levels(model, weights)[-1]

    def select(visit: BlockVisit, logits_row: Var) -> tuple[Var, Var]:
        best, row_in_level = _top_k_of_block(level, weights, visit, k)
        target = (
            op.gather(weights["row_target"], row_in_level)
            if "row_target" in weights
            else row_in_level
        )
        return (
            op.gather(pad_to_k(best, k, -np.inf), logits_row),
            op.gather(pad_to_k(target, k, model.num_targets), logits_row),
        )

    return visit_blocks(level, hidden, row, block, lambda logits_row: (logits_row,), select)


def _top_k_of_block(
    level: LevelWeights, weights: Weights, visit: BlockVisit, k: Var
) -> tuple[Var, Var]:
    """Return (log p, row): the k best rows of a block; ties go to the lower target."""
    start, end = visit.bounds()
    log_probs, alive = visit.log_prob_matrix(), level.alive(start, end)
    log_probs = log_probs if alive is None else op.add(log_probs, alive)
    num_best = op.min([k, length(log_probs, axis=1)])
    if "row_order" not in weights:
        best, position = op.top_k(log_probs, num_best)
        return best, op.add(position, start)
    order = as_int(between(weights["row_order"], start, end))
    best, order_index = op.top_k(op.gather(log_probs, op.sub(order, start), axis=1), num_best)
    return best, op.gather(order, order_index)


def _last_index(bounds: Var) -> Var:
    return op.sub(count(bounds, axis=1), integer(1))
