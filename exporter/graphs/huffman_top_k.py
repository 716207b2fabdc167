"""Lowers top_k of a binary tree: an exact search that opens few nodes.

A leaf's log p is at most that of its ancestors. Each row keeps its *frontier*, the known nodes that
are not opened yet, in descending order of log p, and opens some of the best in each round. The
children of an opened node are results (leaves) or new frontier nodes (inner nodes). Nodes below the
k-th best result are dropped; when the frontier is empty, the result is exact. The number of opened
nodes grows with each round, so it stays small for a peaked distribution and grows fast for a flat
one. The result of a row does not depend on the other rows.

A row that opens too many nodes is recomputed from its full distribution; its `blocks` is then the
number of all nodes. Queries that the search cannot speed up use the full distribution at once.

fastText's scores may increase on the way down, by at most log(1 + 1e-5) per step: `_score_slack`.
"""

from dataclasses import dataclass

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from hsoftmax.models import HuffmanSoftmax
from hsoftmax.models.huffman_softmax import FASTTEXT_EPSILON

from .binary_tree import log_branches, node_logits
from .chunked import map_chunks
from .huffman_softmax import log_probs
from .ops import as_int, between, column, concat, full, integer, ints, length, real, scalar, vector
from .top_k_merge import any_true, merge_top_k, recompute_rows
from .weights import Weights

_MIN_SEARCH_WEIGHTS = 1 << 24  # fewer weights are faster to read in full
_MIN_TARGETS_PER_K = 64  # a larger k is computed from the full distribution
_NODES_PER_TRIAL = 256  # a row may open one node in 256 before it is recomputed densely
_MAX_ROWS_PER_CHUNK = 32  # rows that are searched together
_FIRST_ROUND_NODES, _ROUNDS_PER_EXTRA_NODE, _MAX_ROUND_NODES = 4, 2, 64  # opened per round


@dataclass(frozen=True)
class NodeLimits:
    """The number of nodes that a row may open."""

    unlimited: Var  # scalar bool: True if results must be exact
    max_nodes: Var  # scalar: the limit, or if unlimited the nodes opened before a dense recompute


@dataclass(frozen=True)
class SearchState:
    """Results and frontier of all rows between two rounds."""

    log_prob: Var  # [B, k] descending
    target: Var  # [B, k]
    bound: Var  # [B, F] log p of the frontier's nodes, descending; -inf for none
    node: Var  # [B, F]
    opened: Var  # [B]

    def parts(self) -> list[Var]:
        return [self.log_prob, self.target, self.bound, self.node, self.opened]


def top_k(
    model: HuffmanSoftmax, weights: Weights, hidden: Var, k: Var, max_blocks: Var
) -> tuple[Var, ...]:
    """hidden [B, H], k [1], max_blocks [1] -> log_prob, target [B, k], blocks, exact [B].

    A block is a node; max_blocks 0 means no limit. A row with a limit still opens nodes until it
    has k targets.
    """
    if model.num_targets == 1:
        return _dense(model, weights, hidden, k)
    unlimited = op.equal(scalar(max_blocks), integer(0))
    trial_nodes = op.add(op.mul(scalar(k), integer(4)), integer(_trial_nodes(model)))
    limits = NodeLimits(unlimited, op.where(unlimited, trial_nodes, scalar(max_blocks)))
    return tuple(
        op.if_(
            op.and_(unlimited, _is_dense_faster(model, k)),
            then_branch=lambda: _dense(model, weights, hidden, k),
            else_branch=lambda: _search_in_chunks(model, weights, hidden, k, limits),
        )
    )


def _dense(model: HuffmanSoftmax, weights: Weights, hidden: Var, k: Var) -> tuple[Var, ...]:
    """Compute top_k from the full distribution; there ties go to the lower target."""
    log_prob, target = op.top_k(log_probs(model, weights, hidden)[0], k)
    batch = length(hidden)
    return log_prob, target, full(batch, model.num_targets - 1), full(batch, True)


def _is_dense_faster(model: HuffmanSoftmax, k: Var) -> Var:
    is_small = model.num_targets * model.hidden_size < _MIN_SEARCH_WEIGHTS
    is_large_k = op.greater(
        op.mul(scalar(k), integer(_MIN_TARGETS_PER_K)), integer(model.num_targets)
    )
    return op.or_(op.const(np.array(is_small)), is_large_k)


def _trial_nodes(model: HuffmanSoftmax) -> int:
    return model.num_targets // _NODES_PER_TRIAL + 8 * model.depth


def _score_slack(model: HuffmanSoftmax) -> float:
    """Return the largest amount by which a leaf's score may exceed that of a node above it."""
    return 0.0 if model.compat == "exact" else float(np.log1p(FASTTEXT_EPSILON)) * (model.depth + 1)


def _search_in_chunks(
    model: HuffmanSoftmax, weights: Weights, hidden: Var, k: Var, limits: NodeLimits
) -> tuple[Var, ...]:
    def chunk(start: Var, end: Var) -> tuple[Var, ...]:
        return _search(model, weights, between(hidden, start, end), k, limits)

    log_prob, target, opened, exact = map_chunks(length(hidden), _MAX_ROWS_PER_CHUNK, chunk)
    results = (op.reshape(log_prob, concat(ints(-1), k)), op.reshape(target, concat(ints(-1), k)))
    is_unfinished = op.and_(op.not_(exact), limits.unlimited)
    return recompute_rows(
        lambda rows: _dense(model, weights, rows, k),
        hidden,
        is_unfinished,
        (*results, opened, exact),
    )


def _search(
    model: HuffmanSoftmax, weights: Weights, hidden: Var, k: Var, limits: NodeLimits
) -> tuple[Var, ...]:
    """Run rounds for a chunk of rows until each has an exact result or may not go on."""

    def body(i: Var, condition: Var, *parts: Var) -> list[Var]:
        search = SearchState(*parts)
        num_nodes = op.add(op.div(i, ints(_ROUNDS_PER_EXTRA_NODE)), ints(_FIRST_ROUND_NODES))
        num_nodes = op.min([num_nodes, ints(_MAX_ROUND_NODES), length(search.bound, axis=1)])
        search = _open_nodes(
            model, weights, hidden, k, search, _choose_nodes(model, search, limits, num_nodes)
        )
        return [any_true(_active(model, search, limits)), *search.parts()]

    start = _start(model, hidden, k)
    final = op.loop(
        cond=any_true(_active(model, start, limits)), v_initial=start.parts(), body=body
    )
    search = SearchState(*final)
    return search.log_prob, search.target, search.opened, op.not_(_has_candidates(model, search))


def _start(model: HuffmanSoftmax, hidden: Var, k: Var) -> SearchState:
    batch = length(hidden)
    results, one = concat(batch, k), concat(batch, ints(1))
    return SearchState(
        full(results, -np.inf),
        full(results, model.num_targets),
        full(one, 0.0),
        full(one, int(model.path[0, 0])),
        full(batch, 0),
    )


def _choose_nodes(
    model: HuffmanSoftmax, search: SearchState, limits: NodeLimits, num_nodes: Var
) -> Var:
    """Return bool [B, num_nodes]: the first frontier nodes that each row opens in this round.

    A row with a limit that still lacks targets opens one more node.
    """
    bound = between(search.bound, ints(0), num_nodes, axis=1)
    remaining = op.sub(limits.max_nodes, search.opened)
    remaining = op.where(_lacks_targets(search), op.max([remaining, integer(1)]), remaining)
    position = op.range(integer(0), scalar(num_nodes), integer(1))
    is_active = column(_active(model, search, limits))
    is_candidate = op.and_(is_active, _may_improve(model, bound, search))
    return op.and_(is_candidate, op.less(position, column(remaining)))


def _open_nodes(
    model: HuffmanSoftmax, weights: Weights, hidden: Var, k: Var, search: SearchState, chosen: Var
) -> SearchState:
    num_nodes = length(chosen, axis=1)
    bound = between(search.bound, ints(0), num_nodes, axis=1)
    node = op.where(chosen, between(search.node, ints(0), num_nodes, axis=1), integer(0))
    logits = node_logits(weights, hidden, node)
    child_bound = concat(
        *(op.add(bound, log_prob_step) for log_prob_step in log_branches(model, logits)), axis=1
    )
    child_bound = op.where(concat(chosen, chosen, axis=1), child_bound, real(-np.inf))
    children = as_int(op.gather(weights["children"], node))
    child = concat(*(op.gather(children, integer(side), axis=2) for side in (0, 1)), axis=1)
    log_prob, target = _merge_leaves(model, search, child_bound, child, k)
    unopened = op.where(chosen, real(-np.inf), bound)
    opened = op.add(search.opened, op.reduce_sum(as_int(chosen), ints(1), keepdims=0))
    state = SearchState(
        log_prob, target, *_extend_frontier(search, unopened, child_bound, child, num_nodes), opened
    )
    return _trim_frontier(model, state)


def _merge_leaves(
    model: HuffmanSoftmax, search: SearchState, child_bound: Var, child: Var, k: Var
) -> tuple[Var, Var]:
    """Return the k best of the results so far and the leaves among the children."""
    is_leaf = op.and_(op.less(child, integer(0)), op.greater(child_bound, real(-np.inf)))
    scores = op.where(is_leaf, child_bound, real(-np.inf))
    targets = op.where(is_leaf, op.sub(integer(-1), child), integer(model.num_targets))
    return merge_top_k(
        concat(search.log_prob, scores, axis=1), concat(search.target, targets, axis=1), k
    )


def _extend_frontier(
    search: SearchState, unopened: Var, child_bound: Var, child: Var, num_nodes: Var
) -> tuple[Var, Var]:
    """Return the frontier without the opened nodes, with the inner nodes among the children."""
    frontier_size = length(search.bound, axis=1)
    inner = op.where(op.less(child, integer(0)), real(-np.inf), child_bound)
    bounds = concat(
        unopened, between(search.bound, num_nodes, frontier_size, axis=1), inner, axis=1
    )
    return bounds, concat(search.node, child, axis=1)


def _trim_frontier(model: HuffmanSoftmax, search: SearchState) -> SearchState:
    """Sort the frontier and cut it to the largest number of candidates of a row."""
    is_candidate = as_int(_may_improve(model, search.bound, search))
    needed = op.reduce_sum(is_candidate, ints(1), keepdims=0)
    width = op.max([vector(op.reduce_max(needed, keepdims=0)), ints(1)])
    bound, order = op.top_k(search.bound, width)
    node = op.gather_elements(search.node, order, axis=1)
    return SearchState(search.log_prob, search.target, bound, node, search.opened)


def _may_improve(model: HuffmanSoftmax, bound: Var, search: SearchState) -> Var:
    """Return True where a leaf below a frontier node may enter, or tie with, the k best."""
    slack = _score_slack(model)
    highest = op.add(bound, real(slack)) if slack else bound
    is_candidate = op.greater_or_equal(highest, column(_kth(search)))
    return op.and_(is_candidate, op.greater(bound, real(-np.inf)))


def _has_candidates(model: HuffmanSoftmax, search: SearchState) -> Var:
    """Return bool [B]: the row's frontier may still change its result."""
    first = between(search.bound, ints(0), ints(1), axis=1)
    return vector(_may_improve(model, first, search))


def _active(model: HuffmanSoftmax, search: SearchState, limits: NodeLimits) -> Var:
    """Return bool [B]: the row opens more nodes."""
    is_allowed = op.less(search.opened, limits.max_nodes)
    is_allowed = op.or_(is_allowed, op.and_(_lacks_targets(search), op.not_(limits.unlimited)))
    return op.and_(_has_candidates(model, search), is_allowed)


def _lacks_targets(search: SearchState) -> Var:
    """Return bool [B]: the row has fewer than k results."""
    return op.equal(_kth(search), real(-np.inf))


def _kth(search: SearchState) -> Var:
    return op.reduce_min(search.log_prob, ints(1), keepdims=0)
