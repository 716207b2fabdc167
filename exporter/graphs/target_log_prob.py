"""Lowers target_log_prob: the sum of the local log-softmaxes along each target's path.

    log p(target | hidden) = sum over levels of log_softmax(block(path))[position(path)]

The path of an inner node ends above the last level. The graph follows the path of a row below it,
and counts the levels below it for nothing.

Many pairs are grouped, so that each distinct block is visited once. For a few pairs the number of
operators matters more: all their blocks are copied at once, as in the textbook graph.
"""

from functools import partial

import spox.opset.ai.onnx.v21 as op
from spox import Var

from hsoftmax.models import HierarchicalSoftmax
from hsoftmax.models.hierarchical_softmax import INNER_LEVELS, INNER_ROWS

from .distinct_blocks import BlockVisit, visit_blocks
from .hidden_states import HiddenStates
from .level_weights import LevelWeights, broadcast_logits, levels
from .log_probs import cluster_log_probs
from .ops import between, column, count, full, integer, ints, length, pick, real, true, vector
from .weights import Weights

_MAX_GATHERED_BYTES = 7_000_000
_MAX_CLUSTER_LOGIT_BYTES = 1 << 19
_MIN_SMALL_PAIRS, _MAX_SMALL_PAIRS = 4, 64


def target_log_prob(
    model: HierarchicalSoftmax, weights: Weights, hidden: Var, row: Var, target: Var
) -> tuple[Var]:
    """hidden [B, H], row [P], target [P] -> log_prob [P]."""
    level_row, depth = _path_ends(model, weights, target)
    path = []
    for level in reversed(levels(model, weights)[1:]):
        block = level.block_of_row(level_row)
        path.append((level, block, level.position(level_row, block)))
        level_row = block

    def grouped() -> list[Var]:
        local = [
            _visit_log_prob(level, hidden, row, block, position) for level, block, position in path
        ]
        clusters = _cluster_log_prob(model, weights, hidden, row, level_row)
        return [_sum(*_above(depth, clusters, local, axes=1))]

    def gathered() -> list[Var]:
        states = top_level.broadcast_states(op.gather(hidden, column(row)))
        clusters = broadcast_logits(top_level.all_rows(), states)
        local = [_few_log_prob(level, hidden, row, states, *location) for level, *location in path]
        top = _pick_log_prob(clusters, level_row)
        return [vector(_sum(*_above(depth, top, local, axes=3)))]

    top_level = levels(model, weights)[0]
    if not top_level.is_transposed:
        return (grouped()[0],)
    is_small = op.less_or_equal(length(target), ints(_small_limit(model, weights)))
    return (op.if_(is_small, then_branch=gathered, else_branch=grouped)[0],)


def _path_ends(model: HierarchicalSoftmax, weights: Weights, target: Var) -> tuple[Var, Var | None]:
    """Return (a row of the last level for each target, the last level of its path).

    The level is None if it is the last one for each target, as without inner nodes.
    """

    def row_of(target: Var) -> Var:
        if model.target_rows is None:
            return target
        return op.gather(weights["target_rows"], target)

    if model.inner is None:
        return row_of(target), None
    first = ints(model.num_targets)
    is_inner = op.greater_or_equal(target, first)
    node = op.where(is_inner, op.sub(target, first), ints(0))
    of_targets = row_of(op.where(is_inner, ints(0), target))
    level_row = op.where(is_inner, op.gather(weights[INNER_ROWS], node), of_targets)
    last = ints(len(model.levels) - 1)
    return level_row, op.where(is_inner, op.gather(weights[INNER_LEVELS], node), last)


def _above(
    depth: Var | None, clusters: Var, local: list[Var], *, axes: int
) -> tuple[Var, list[Var]]:
    """Return the terms with 0 for those below the end of the path; `local` has the last first.

    The terms have one number for each pair, on the first of their last `axes` axes.
    """
    if depth is None:
        return clusters, local
    pairs = op.reshape(depth, ints(-1, *[1] * (axes - 1)))
    terms = [
        op.where(op.greater_or_equal(pairs, ints(level)), term, real(0.0))
        for level, term in enumerate([clusters, *reversed(local)])
    ]
    return terms[0], terms[:0:-1]


def _small_limit(model: HierarchicalSoftmax, weights: Weights) -> int:
    """Return the largest number of pairs whose blocks are copied at once: some megabytes."""
    if not all(level.is_transposed for level in levels(model, weights)):
        return _MIN_SMALL_PAIRS
    largest = max(level.block_bytes for level in levels(model, weights))
    return max(_MIN_SMALL_PAIRS, min(_MAX_GATHERED_BYTES // largest, _MAX_SMALL_PAIRS))


def _cluster_log_prob(
    model: HierarchicalSoftmax, weights: Weights, hidden: Var, row: Var, cluster: Var
) -> Var:
    """Return log p(cluster [P] | hidden[row [P]]), computed in chunks of hidden rows."""
    rows_per_chunk = max(1, _MAX_CLUSTER_LOGIT_BYTES // (4 * model.num_clusters))

    def body(i: Var, condition: Var, result: Var) -> list[Var]:
        start = op.mul(i, ints(rows_per_chunk))
        chunk = between(hidden, start, op.add(start, ints(rows_per_chunk)))
        log_probs = cluster_log_probs(model, weights, chunk)[0]
        chunk_row = op.sub(row, start)
        is_in_chunk = op.and_(
            op.greater_or_equal(chunk_row, ints(0)), op.less(chunk_row, length(chunk))
        )
        local = op.where(is_in_chunk, chunk_row, ints(0))
        return [true(), op.where(is_in_chunk, pick(log_probs, local, cluster), result)]

    num_chunks = op.div(op.add(count(hidden), integer(rows_per_chunk - 1)), integer(rows_per_chunk))
    zeros = full(length(row), 0.0)
    return op.loop(num_chunks, v_initial=[zeros], body=body)[0]


def _visit_log_prob(
    level: LevelWeights, hidden: Var, row: Var, block: Var, position: Var, *, is_small: bool = False
) -> Var:
    def flat_index(logits_row: Var) -> tuple[Var]:
        return (op.add(op.mul(logits_row, integer(level.level.block_size or 0)), position),)

    def select_flat(visit: BlockVisit, index: Var) -> tuple[Var]:
        return (op.gather(vector(visit.log_probs), index),)

    def select(visit: BlockVisit, logits_row: Var, position: Var) -> tuple[Var]:
        return (pick(visit.log_probs, logits_row, position),)

    visit = partial(visit_blocks, level, hidden, row, block, is_small=is_small)
    if level.level.block_size is None:
        return visit(lambda logits_row: (logits_row, position), select)[0]
    return visit(flat_index, select_flat, types=(float,))[0]


def _few_log_prob(
    level: LevelWeights, hidden: Var, row: Var, states: HiddenStates, block: Var, position: Var
) -> Var:
    """Return log p within the block, [P, 1, 1], for a few pairs with one state each."""
    if level.is_transposed:
        return _pick_log_prob(broadcast_logits(level.gather_blocks(block), states), position)
    log_prob = _visit_log_prob(level, hidden, row, block, position, is_small=True)
    return op.reshape(log_prob, ints(-1, 1, 1))


def _pick_log_prob(logits: Var, position: Var) -> Var:
    """logits [..., P, 1, K], position [P] -> log-probability at each position, [..., P, 1, 1]."""
    *ones, _, _, _ = logits.unwrap_tensor().shape or ()
    index = op.reshape(position, ints(*(1 for _ in ones), -1, 1, 1))
    return op.gather_elements(op.log_softmax(logits), index, axis=-1)


def _sum(total: Var, terms: list[Var]) -> Var:
    for term in terms:
        total = op.add(total, term)
    return total
