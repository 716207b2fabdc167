"""Lowers log_probs and cluster_log_probs: the full distribution, level by level.

    log p(row of level i) = log p(its parent in level i - 1) + log_softmax(its block)[position]

Weights are read once, in tiles that stay in cache; the only large array is the result.
"""

from collections.abc import Callable

import spox.opset.ai.onnx.v21 as op
from spox import Var

from hsoftmax.models import HierarchicalSoftmax

from .hidden_states import HiddenStates
from .level_weights import BlockWeights, LevelWeights, levels, logits
from .ops import between, concat, integer, ints, transpose, true
from .weights import Weights

_TILE_ROWS = 1024  # 1 MB of float32 weights at hidden size 256


def log_probs(model: HierarchicalSoftmax, weights: Weights, hidden: Var) -> tuple[Var]:
    """hidden [B, H] -> log_probs [B, N]."""
    rows = row_log_probs(model, weights, hidden, depth=len(model.levels))
    if model.target_rows is not None:
        return (op.gather(rows, weights["target_rows"], axis=1),)
    if model.num_targets == model.levels[-1].num_rows:
        return (rows,)
    return (between(rows, ints(0), ints(model.num_targets), axis=1),)


def cluster_log_probs(model: HierarchicalSoftmax, weights: Weights, hidden: Var) -> tuple[Var]:
    """hidden [B, H] -> log_probs [B, C]."""
    return (row_log_probs(model, weights, hidden, depth=1),)


def row_log_probs(model: HierarchicalSoftmax, weights: Weights, hidden: Var, *, depth: int) -> Var:
    """Return log p of every row of level depth - 1, [B, rows]."""
    first, *rest = levels(model, weights)[:depth]
    parent_log_probs = op.log_softmax(top_logits(first, first.states(hidden)), axis=1)
    for level in rest:
        compute = _unequal_blocks if level.level.block_size is None else _equal_blocks
        parent_log_probs = compute(level, level.states(hidden), parent_log_probs)
    return parent_log_probs


def top_logits(level: LevelWeights, states: HiddenStates) -> Var:
    """Return the logits of all rows of a level; half-precision rows are converted tile by tile."""
    is_tiled = level.is_half and not level.is_transposed
    return _all_logits(level, states) if is_tiled else logits(level.all_rows(), states)


def _equal_blocks(level: LevelWeights, states: HiddenStates, parent_log_probs: Var) -> Var:
    """Compute several blocks per tile, and then the last blocks, too few for a tile."""
    size, blocks = level.level.block_size or 1, level.level.num_blocks
    blocks_per_tile = min(blocks, max(1, _TILE_ROWS // size))
    tiled = blocks - blocks % blocks_per_tile
    parents = between(parent_log_probs, ints(0), ints(tiled), axis=1)
    parents = op.reshape(parents, ints(-1, tiled // blocks_per_tile, blocks_per_tile))

    def segments(rows: BlockWeights, parent: Var) -> Var:
        block_logits = op.reshape(logits(rows, states), ints(-1, rows.num_rows // size, size))
        return op.add(op.log_softmax(block_logits, axis=2), op.unsqueeze(parent, ints(2)))

    result = _map_tiles(
        level, blocks_per_tile * size, states, segments, op.transpose(parents, perm=(1, 0, 2))
    )
    if tiled == blocks:
        return result
    last_blocks = segments(
        level.rows_from(tiled * size), between(parent_log_probs, ints(tiled), ints(blocks), axis=1)
    )
    return concat(result, op.reshape(last_blocks, ints(-1, (blocks - tiled) * size)), axis=1)


def _unequal_blocks(level: LevelWeights, states: HiddenStates, parent_log_probs: Var) -> Var:
    """Return all logits, minus each block's log-sum-exp, plus its parent's log p."""
    all_logits = _all_logits(level, states)
    shift = op.sub(parent_log_probs, transpose(_log_sums(level, all_logits)))
    return op.add(all_logits, op.gather(shift, level.tensor("block_of_row"), axis=1))


def _log_sums(level: LevelWeights, all_logits: Var) -> Var:
    """Return the log-sum-exp of each block, [blocks, B].

    That of a block of one row is its logit, without a step of the loop, which costs far more than
    the sum: trees with leaves at many depths have many such blocks.
    """
    sizes, offsets = level.level.block_sizes, level.tensor("offsets")
    has_single_rows = bool((sizes == 1).any())
    wide_blocks = level.tensor("wide_blocks") if has_single_rows else None

    def log_sum(i: Var, condition: Var) -> list[Var]:
        block = i if wide_blocks is None else op.gather(wide_blocks, i)
        start, end = op.gather(offsets, block), op.gather(offsets, op.add(block, ints(1)))
        block_logits = between(all_logits, start, end, axis=1)
        return [true(), op.reduce_log_sum_exp(block_logits, ints(1), keepdims=0)]

    (log_sums,) = op.loop(integer(int((sizes > 1).sum())), body=log_sum)
    if wide_blocks is None:
        return log_sums
    first_rows = between(offsets, ints(0), ints(level.level.num_blocks), axis=0)
    first_logits = transpose(op.gather(all_logits, first_rows, axis=1))
    return op.scatter_nd(first_logits, op.unsqueeze(wide_blocks, ints(1)), log_sums)


def _all_logits(level: LevelWeights, states: HiddenStates) -> Var:
    """Return the logits of every row, [B, rows]."""
    rows = level.level.num_rows
    size = min(rows, _TILE_ROWS)
    all_logits = _map_tiles(level, size, states, lambda tile: logits(tile, states))
    remaining = rows % size
    return (
        concat(all_logits, logits(level.rows_from(rows - remaining), states), axis=1)
        if remaining
        else all_logits
    )


def _map_tiles(
    level: LevelWeights,
    size: int,
    states: HiddenStates,
    compute: Callable[..., Var],
    *tile_inputs: Var,
) -> Var:
    """Return the results of `compute` for each tile of `size` rows, [B, ...], joined as [B, rows].

    `tile_inputs` have one element per tile on their first axis. A last tile with fewer rows is left
    out.
    """
    num_tiles = level.level.num_rows // size
    arrays = level.tile_arrays(num_tiles, size)

    def body(*slices: Var) -> list[Var]:
        return [compute(BlockWeights(*slices[: len(arrays)]), *slices[len(arrays) :])]

    scanned = [*arrays, *tile_inputs]
    (stacked,) = op.scan(scanned, body=body, num_scan_inputs=len(scanned))
    axes = range(2, len(stacked.unwrap_tensor().shape or ()))
    # Reading the number of states keeps them out of the body: see `distinct_blocks._map_elements`.
    shape = concat(states.count(), ints(num_tiles * size))
    return op.reshape(op.transpose(stacked, perm=(1, 0, *axes)), shape)
