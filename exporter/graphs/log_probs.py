"""log_probs: the whole distribution, level by level.

    log p(row of level i) = log p(its parent in level i - 1) + log_softmax(its block)[position]

Weights are read once, in tiles that stay in cache; the only large array is the answer.
"""

from collections.abc import Callable

import spox.opset.ai.onnx.v21 as op
from spox import Var

from hsoftmax.models import HierarchicalSoftmax

from .hidden_states import States
from .levels import Block, LevelWeights, levels, logits
from .ops import between, concat, integer, ints, transpose, yes
from .weights import Weights

_TILE = 1024  # rows whose logits are computed at once: 1 MB of weights of 256


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
    """log p of every row of level depth - 1, [B, rows]."""
    first, *rest = levels(model, weights)[:depth]
    above = op.log_softmax(top_logits(first, first.states(hidden)), axis=1)
    for level in rest:
        below = _unequal_blocks if level.level.block_size is None else _equal_blocks
        above = below(level, level.states(hidden), above)
    return above


def top_logits(level: LevelWeights, states: States) -> Var:
    """A product with the whole level; rows in half precision are converted a tile at a time."""
    in_tiles = level.is_half and not level.is_transposed
    return _scores(level, states) if in_tiles else logits(level.whole(), states)


def _equal_blocks(level: LevelWeights, states: States, above: Var) -> Var:
    """Several blocks a pass, and at the end those that are too few for one."""
    size, blocks = level.level.block_size or 1, level.level.num_blocks
    at_once = min(blocks, max(1, _TILE // size))
    tiled = blocks - blocks % at_once
    parents = between(above, ints(0), ints(tiled), axis=1)
    parents = op.reshape(parents, ints(-1, tiled // at_once, at_once))

    def segments(rows: Block, parent: Var) -> Var:
        scores = op.reshape(logits(rows, states), ints(-1, rows.num_rows // size, size))
        return op.add(op.log_softmax(scores, axis=2), op.unsqueeze(parent, ints(2)))

    done = _in_tiles(level, at_once * size, states, segments, op.transpose(parents, perm=(1, 0, 2)))
    if tiled == blocks:
        return done
    rest = segments(level.part(tiled * size), between(above, ints(tiled), ints(blocks), axis=1))
    return concat(done, op.reshape(rest, ints(-1, (blocks - tiled) * size)), axis=1)


def _unequal_blocks(level: LevelWeights, states: States, above: Var) -> Var:
    """Logits of all rows, less each block's log-sum-exp and plus its parent's log p."""
    scores, offsets = _scores(level, states), level.tensor("offsets")

    def log_sum(i: Var, going: Var) -> list[Var]:
        start, end = op.gather(offsets, i), op.gather(offsets, op.add(i, ints(1)))
        some = between(scores, start, end, axis=1)
        return [yes(), op.reduce_log_sum_exp(some, ints(1), keepdims=0)]

    (log_sums,) = op.loop(integer(level.level.num_blocks), body=log_sum)
    shift = op.sub(above, transpose(log_sums))
    return op.add(scores, op.gather(shift, level.tensor("block_of_row"), axis=1))


def _scores(level: LevelWeights, states: States) -> Var:
    """Logits of every row, [B, rows]."""
    rows = level.level.num_rows
    size = min(rows, _TILE)
    scores = _in_tiles(level, size, states, lambda tile: logits(tile, states))
    left = rows % size
    return concat(scores, logits(level.part(rows - left), states), axis=1) if left else scores


def _in_tiles(
    level: LevelWeights, size: int, states: States, answer: Callable[..., Var], *given: Var
) -> Var:
    """What `answer` says of each tile of so many rows, [B, ...], side by side: [B, rows].

    A last tile of fewer rows is left out. `given` has something for each tile on its first axis.
    """
    tiles = level.level.num_rows // size
    arrays = level.tiles(tiles, size)

    def body(*slices: Var) -> list[Var]:
        return [answer(Block(*slices[: len(arrays)]), *slices[len(arrays) :])]

    scanned = [*arrays, *given]
    (stacked,) = op.scan(scanned, body=body, num_scan_inputs=len(scanned))
    axes = range(2, len(stacked.unwrap_tensor().shape or ()))
    # Reading how many states there are keeps them out of the body, see visits.
    shape = concat(states.count(), ints(tiles * size))
    return op.reshape(op.transpose(stacked, perm=(1, 0, *axes)), shape)
