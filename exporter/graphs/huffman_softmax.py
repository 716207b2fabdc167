"""HuffmanSoftmax in a graph: one target, the whole distribution, and samples.

    log p(target | hidden) = sum over steps of log sigmoid(sign * syn1[node] . hidden)

`target_log_prob` reads the weights of the path alone; `log_probs` takes all nodes' logits in one
product and hands log p down the tree, level by level; `sample` walks. Top-k is in `huffman_top_k`.
"""

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from hsoftmax.models import HuffmanSoftmax

from .binary_tree import LOOKED_UP, log_branches, log_step, node_logits
from .chunked import in_chunks
from .hidden_states import columns_of
from .ops import (
    as_int,
    between,
    concat,
    count,
    full,
    integer,
    ints,
    length,
    real,
    scalar,
    transpose,
    vector,
    yes,
)
from .weights import Weights

_PAIRS_AT_ONCE = 256  # whose paths' weights are copied together: some megabytes
_STEPS_AT_ONCE = 1 << 20  # steps looked up together
_ROWS_AT_ONCE = 16  # rows whose samples walk together


# --- one target -----------------------------------------------------------------------------------


def target_log_prob(
    model: HuffmanSoftmax, weights: Weights, hidden: Var, row: Var, target: Var
) -> tuple[Var]:
    """hidden [B, H], row [P], target [P] -> log_prob [P]."""
    few = op.less_or_equal(count(target), integer(_PAIRS_AT_ONCE))
    return (
        op.if_(
            few,
            then_branch=lambda: [_along_paths(model, weights, hidden, row, target)],
            else_branch=lambda: [_in_parts(model, weights, hidden, row, target)],
        )[0],
    )


def _along_paths(
    model: HuffmanSoftmax, weights: Weights, hidden: Var, row: Var, target: Var
) -> Var:
    """All pairs at once; steps beyond the longest of their paths are left out."""
    sign = op.cast(op.gather(weights["sign"], target), to=np.float32)
    longest = op.reduce_max(concat(ints(1), _lengths(sign)), ints(0))
    sign = between(sign, ints(0), longest, axis=1)
    path = between(op.gather(weights["path"], target), ints(0), longest, axis=1)
    logits = node_logits(weights, op.gather(hidden, row), path)
    steps = log_step(model, op.mul(sign, logits))
    taken = op.where(op.equal(sign, real(0.0)), real(0.0), steps)
    return op.reduce_sum(taken, ints(1), keepdims=0)


def _in_parts(model: HuffmanSoftmax, weights: Weights, hidden: Var, row: Var, target: Var) -> Var:
    """Some pairs at a time, longest paths first, so that short ones are not padded to them."""
    sign = op.cast(op.gather(weights["sign"], target), to=np.float32)
    _, order = op.top_k(_lengths(sign), length(target))

    def part(start: Var, end: Var) -> tuple[Var]:
        some = between(order, start, end)
        pairs = (op.gather(row, some), op.gather(target, some))
        return (_along_paths(model, weights, hidden, *pairs),)

    (answers,) = in_chunks(length(target), _PAIRS_AT_ONCE, part)
    return op.scatter_elements(answers, order, answers)


def _lengths(sign: Var) -> Var:
    return as_int(op.reduce_sum(op.abs(sign), ints(1), keepdims=0))


# --- the whole distribution -----------------------------------------------------------------------


def log_probs(model: HuffmanSoftmax, weights: Weights, hidden: Var) -> tuple[Var]:
    """hidden [B, H] -> log_probs [B, N]."""
    if model.num_targets == 1:
        return (full(concat(length(hidden), ints(1)), 0.0),)
    logits = op.matmul(weights["syn1"], columns_of(hidden, model.hidden_size))
    if model.path.size > LOOKED_UP:
        return (_by_depth(model, weights, logits),)
    steps = op.mul(count(hidden), integer(model.path.size))
    return (
        op.if_(
            op.less_or_equal(steps, integer(_STEPS_AT_ONCE)),
            then_branch=lambda: [_looked_up(model, weights, logits)],
            else_branch=lambda: [_by_depth(model, weights, logits)],
        )[0],
    )


def _looked_up(model: HuffmanSoftmax, weights: Weights, logits: Var) -> Var:
    """logits [nodes, B] -> [B, N]: every step of every path at once, for few and small trees."""
    across = transpose(logits)
    branches = log_branches(model, across)
    nothing = full(concat(length(across), ints(1)), 0.0)
    steps = op.gather(concat(*branches, nothing, axis=1), weights["steps"], axis=1)
    return op.reduce_sum(steps, ints(2), keepdims=0)


def _by_depth(model: HuffmanSoftmax, weights: Weights, logits: Var) -> Var:
    """logits [nodes, B] -> [B, N]: log p of all nodes of a depth, from those of the depth above."""
    first_node, first_leaf = weights["first_node"], weights["first_leaf"]

    def descend(d: Var, going: Var, above: Var, leaves: Var) -> list[Var]:
        here, below, after = (vector(op.add(d, integer(i))) for i in (0, 1, 2))
        at, next_at, end_at = (op.gather(first_node, i) for i in (here, below, after))
        z = op.gather(logits, between(weights["order"], at, next_at))
        ends = concat(*(op.add(above, branch) for branch in log_branches(model, z)))
        # `inner_from` has no entry for the root.
        inner = between(weights["inner_from"], op.sub(next_at, ints(1)), op.sub(end_at, ints(1)))
        found = between(
            weights["leaf_from"], op.gather(first_leaf, here), op.gather(first_leaf, below)
        )
        return [yes(), op.gather(ends, inner), concat(leaves, op.gather(ends, found))]

    batch = length(logits, axis=1)
    start = [full(concat(ints(1), batch), 0.0), full(concat(ints(0), batch), 0.0)]
    _, leaves = op.loop(integer(model.depth), v_initial=start, body=descend)
    return transpose(op.gather(leaves, weights["leaf_place"]))


# --- samples --------------------------------------------------------------------------------------


def sample(model: HuffmanSoftmax, weights: Weights, hidden: Var, noise: Var) -> tuple[Var, Var]:
    """hidden [B, H], noise [B, S, depth] in [0, 1) -> target [B, S], log_prob [B, S].

    One uniform number a step decides between the node's branches by their true probabilities;
    log_prob is what target_log_prob says.
    """
    shape = op.shape(noise, start=0, end=2)
    if model.num_targets == 1:
        return full(shape, 0), full(shape, 0.0)

    def part(start: Var, end: Var) -> tuple[Var, Var]:
        return _walk(model, weights, between(hidden, start, end), between(noise, start, end))

    target, log_prob = in_chunks(length(hidden), _ROWS_AT_ONCE, part)
    return op.reshape(target, shape), op.reshape(log_prob, shape)


def _walk(model: HuffmanSoftmax, weights: Weights, hidden: Var, noise: Var) -> tuple[Var, Var]:
    shape = op.shape(noise, start=0, end=2)

    def step(d: Var, going: Var, at: Var, total: Var) -> list[Var]:
        walking = op.greater_or_equal(at, integer(0))
        node = op.max([at, integer(0)])
        logits = node_logits(weights, hidden, node)
        up = op.less(op.gather(noise, scalar(d), axis=2), op.sigmoid(logits))
        signed = op.where(up, logits, op.neg(logits))
        end = op.gather_nd(weights["children"], _both(node, up))
        at = op.where(walking, as_int(end), at)
        total = op.add(total, op.where(walking, log_step(model, signed), real(0.0)))
        ends = op.reduce_max(at, keepdims=0)
        return [op.greater_or_equal(ends, integer(0)), at, total]

    root = op.expand(integer(int(model.path[0, 0])), shape)
    at, total = op.loop(integer(model.depth), v_initial=[root, full(shape, 0.0)], body=step)
    return op.sub(integer(-1), at), total


def _both(node: Var, up: Var) -> Var:
    """[B, S] nodes and whether each goes the +1 branch -> [B, S, 2] places in `children`."""
    return op.concat([op.unsqueeze(node, ints(2)), op.unsqueeze(as_int(up), ints(2))], axis=2)
