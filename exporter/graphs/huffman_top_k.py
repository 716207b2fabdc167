"""top_k over a binary tree: exactly, from as few nodes as can prove it.

A leaf is no likelier than the nodes above it. Each row keeps the nodes that it knows of but has not
opened, its *frontier*, by descending log p, and opens some of the best each round: the two children
of each become answers (leaves) or frontier (inner nodes). What is below the k-th best answer is
dropped for good, and when nothing is left the answer is proven. How many are opened grows by the
round: few for a row that is sure, soon many for one that is not. It depends on nothing but the row.

A row that has opened more than it could have won by is answered from its full distribution, its
`blocks` then being all nodes. So are, at once, questions that a descent cannot win.

fastText's scores may grow on the way down, by log(1 + 1e-5) a step at most: `slack`.
"""

from dataclasses import dataclass

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from hsoftmax.models import HuffmanSoftmax
from hsoftmax.models.huffman_softmax import FASTTEXT_FLOOR

from .binary_tree import log_branches, node_logits
from .chunked import in_chunks
from .huffman_softmax import log_probs
from .ops import as_int, between, column, concat, full, integer, ints, length, real, scalar, vector
from .top_k_merge import answer_anew, any_of, merge
from .weights import Weights

_DENSE_WEIGHTS = 1 << 24  # weights that are read whole sooner than a descent takes its rounds
_DENSE_K = 64  # k of more than one target in so many: answered from the full distribution
_GIVE_UP = 256  # one node in so many is opened before a row gives up
_ROWS_AT_ONCE = 32  # rows that take their rounds together
_FIRST, _ONE_MORE, _MOST = 4, 2, 64  # nodes opened in the first round; one more in so many; most


@dataclass(frozen=True)
class Limits:
    """How far a row may go."""

    unlimited: Var  # scalar bool: exact answers only
    most: Var  # scalar: nodes opened at most where limited, or before the row gives up


@dataclass(frozen=True)
class Search:
    """What rows know: their answers so far, and the nodes they have not opened."""

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

    A block is a node; max_blocks 0 means no limit. A limited row still opens nodes until it has k
    targets to answer.
    """
    if model.num_targets == 1:
        return _dense(model, weights, hidden, k)
    unlimited = op.equal(scalar(max_blocks), integer(0))
    give_up = op.add(op.mul(scalar(k), integer(4)), integer(_before_giving_up(model)))
    limits = Limits(unlimited, op.where(unlimited, give_up, scalar(max_blocks)))
    return tuple(
        op.if_(
            op.and_(unlimited, _cannot_win(model, k)),
            then_branch=lambda: _dense(model, weights, hidden, k),
            else_branch=lambda: _descend(model, weights, hidden, k, limits),
        )
    )


def _dense(model: HuffmanSoftmax, weights: Weights, hidden: Var, k: Var) -> tuple[Var, ...]:
    """From the full distribution: targets are in order there, so ties go to the lower one."""
    log_prob, target = op.top_k(log_probs(model, weights, hidden)[0], k)
    batch = length(hidden)
    return log_prob, target, full(batch, model.num_targets - 1), full(batch, True)


def _cannot_win(model: HuffmanSoftmax, k: Var) -> Var:
    small = model.num_targets * model.hidden_size < _DENSE_WEIGHTS
    many = op.greater(op.mul(scalar(k), integer(_DENSE_K)), integer(model.num_targets))
    return op.or_(op.const(np.array(small)), many)


def _before_giving_up(model: HuffmanSoftmax) -> int:
    return model.num_targets // _GIVE_UP + 8 * model.depth


def _slack(model: HuffmanSoftmax) -> float:
    """How much larger a leaf's score may be than that of a node above it."""
    return 0.0 if model.compat == "exact" else float(np.log1p(FASTTEXT_FLOOR)) * (model.depth + 1)


def _descend(
    model: HuffmanSoftmax, weights: Weights, hidden: Var, k: Var, limits: Limits
) -> tuple[Var, ...]:
    def part(start: Var, end: Var) -> tuple[Var, ...]:
        return _search(model, weights, between(hidden, start, end), k, limits)

    log_prob, target, opened, exact = in_chunks(length(hidden), _ROWS_AT_ONCE, part)
    answers = (op.reshape(log_prob, concat(ints(-1), k)), op.reshape(target, concat(ints(-1), k)))
    gave_up = op.and_(op.not_(exact), limits.unlimited)
    return answer_anew(
        lambda some: _dense(model, weights, some, k), hidden, gave_up, (*answers, opened, exact)
    )


def _search(
    model: HuffmanSoftmax, weights: Weights, hidden: Var, k: Var, limits: Limits
) -> tuple[Var, ...]:
    """Rounds for some rows, until every one has its proof or may not go on."""

    def body(i: Var, going: Var, *parts: Var) -> list[Var]:
        search = Search(*parts)
        size = op.add(op.div(i, ints(_ONE_MORE)), ints(_FIRST))
        size = op.min([size, ints(_MOST), length(search.bound, axis=1)])
        search = _open(model, weights, hidden, k, search, _chosen(model, search, limits, size))
        return [any_of(_active(model, search, limits)), *search.parts()]

    start = _start(model, hidden, k)
    found = op.loop(cond=any_of(_active(model, start, limits)), v_initial=start.parts(), body=body)
    search = Search(*found)
    return search.log_prob, search.target, search.opened, op.not_(_unproven(model, search))


def _start(model: HuffmanSoftmax, hidden: Var, k: Var) -> Search:
    batch = length(hidden)
    answers, one = concat(batch, k), concat(batch, ints(1))
    return Search(
        full(answers, -np.inf),
        full(answers, model.num_targets),
        full(one, 0.0),
        full(one, int(model.path[0, 0])),
        full(batch, 0),
    )


def _chosen(model: HuffmanSoftmax, search: Search, limits: Limits, size: Var) -> Var:
    """[B, size] which of the frontier's first nodes each row opens: those that may matter.

    A limited row that still lacks answers opens one more.
    """
    bound = between(search.bound, ints(0), size, axis=1)
    left = op.sub(limits.most, search.opened)
    left = op.where(_lacking(search), op.max([left, integer(1)]), left)
    place = op.range(integer(0), scalar(size), integer(1))
    going_on = column(_active(model, search, limits))
    worth = op.and_(going_on, _may_matter(model, bound, search))
    return op.and_(worth, op.less(place, column(left)))


def _open(
    model: HuffmanSoftmax, weights: Weights, hidden: Var, k: Var, search: Search, chosen: Var
) -> Search:
    size = length(chosen, axis=1)
    bound = between(search.bound, ints(0), size, axis=1)
    node = op.where(chosen, between(search.node, ints(0), size, axis=1), integer(0))
    logits = node_logits(weights, hidden, node)
    ends = concat(*(op.add(bound, step) for step in log_branches(model, logits)), axis=1)
    ends = op.where(concat(chosen, chosen, axis=1), ends, real(-np.inf))
    children = as_int(op.gather(weights["children"], node))
    below = concat(*(op.gather(children, integer(side), axis=2) for side in (0, 1)), axis=1)
    log_prob, target = _with_leaves(model, search, ends, below, k)
    unopened = op.where(chosen, real(-np.inf), bound)
    opened = op.add(search.opened, op.reduce_sum(as_int(chosen), ints(1), keepdims=0))
    found = Search(log_prob, target, *_joined(search, unopened, ends, below, size), opened)
    return _trimmed(model, found)


def _with_leaves(
    model: HuffmanSoftmax, search: Search, ends: Var, below: Var, k: Var
) -> tuple[Var, Var]:
    """The k best of the answers so far and the leaves among the children."""
    is_leaf = op.and_(op.less(below, integer(0)), op.greater(ends, real(-np.inf)))
    scores = op.where(is_leaf, ends, real(-np.inf))
    targets = op.where(is_leaf, op.sub(integer(-1), below), integer(model.num_targets))
    return merge(concat(search.log_prob, scores, axis=1), concat(search.target, targets, axis=1), k)


def _joined(search: Search, unopened: Var, ends: Var, below: Var, size: Var) -> tuple[Var, Var]:
    """The frontier without what was opened and with the inner nodes among the children."""
    rest = length(search.bound, axis=1)
    inner = op.where(op.less(below, integer(0)), real(-np.inf), ends)
    bounds = concat(unopened, between(search.bound, size, rest, axis=1), inner, axis=1)
    return bounds, concat(search.node, below, axis=1)


def _trimmed(model: HuffmanSoftmax, search: Search) -> Search:
    """The frontier in order, as wide as the row needs that has most that may matter."""
    matter = as_int(_may_matter(model, search.bound, search))
    needed = op.reduce_sum(matter, ints(1), keepdims=0)
    widest = op.max([vector(op.reduce_max(needed, keepdims=0)), ints(1)])
    bound, order = op.top_k(search.bound, widest)
    node = op.gather_elements(search.node, order, axis=1)
    return Search(search.log_prob, search.target, bound, node, search.opened)


def _may_matter(model: HuffmanSoftmax, bound: Var, search: Search) -> Var:
    """Where below a node of the frontier might be one of the k best, or a tie with the last."""
    slack = _slack(model)
    reach = op.add(bound, real(slack)) if slack else bound
    no_worse = op.greater_or_equal(reach, column(_kth(search)))
    return op.and_(no_worse, op.greater(bound, real(-np.inf)))


def _unproven(model: HuffmanSoftmax, search: Search) -> Var:
    """[B] whether something unopened may still matter."""
    first = between(search.bound, ints(0), ints(1), axis=1)
    return vector(_may_matter(model, first, search))


def _active(model: HuffmanSoftmax, search: Search, limits: Limits) -> Var:
    """[B] whether a row goes on."""
    may = op.less(search.opened, limits.most)
    may = op.or_(may, op.and_(_lacking(search), op.not_(limits.unlimited)))
    return op.and_(_unproven(model, search), may)


def _lacking(search: Search) -> Var:
    """[B] whether a row has fewer than k answers yet."""
    return op.equal(_kth(search), real(-np.inf))


def _kth(search: Search) -> Var:
    return op.reduce_min(search.log_prob, ints(1), keepdims=0)
