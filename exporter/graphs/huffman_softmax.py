"""Lowers HuffmanSoftmax into ONNX graphs: target_log_prob, log_probs and sample.

    log p(target | hidden) = sum over steps of log sigmoid(sign * z)
    z = syn1[node] . hidden + bias[node]

`target_log_prob` reads the weights of the path only. `log_probs` computes all nodes' logits in one
product and propagates log p down the tree, depth by depth. `sample` walks from the root to a leaf.
`huffman_top_k` has the task top_k.
"""

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from hsoftmax.models import HuffmanSoftmax

from .binary_tree import MAX_TABLE_STEPS, log_branches, log_step, node_logits
from .chunked import map_chunks
from .converted_product import converted_product
from .hidden_states import to_columns
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
    true,
    vector,
)
from .weights import Weights

_MAX_PAIRS_PER_CHUNK = 256  # the weights of their paths are copied together: some megabytes
_MAX_TABLE_STEPS_PER_BATCH = 1 << 20
_MAX_ROWS_PER_CHUNK = 16  # rows whose samples are drawn together


# --- target_log_prob ------------------------------------------------------------------------------


def target_log_prob(
    model: HuffmanSoftmax, weights: Weights, hidden: Var, row: Var, target: Var
) -> tuple[Var]:
    """hidden [B, H], row [P], target [P] -> log_prob [P]."""
    is_small = op.less_or_equal(count(target), integer(_MAX_PAIRS_PER_CHUNK))
    return (
        op.if_(
            is_small,
            then_branch=lambda: [_sum_paths(model, weights, hidden, row, target)],
            else_branch=lambda: [_sum_paths_in_chunks(model, weights, hidden, row, target)],
        )[0],
    )


def _sum_paths(model: HuffmanSoftmax, weights: Weights, hidden: Var, row: Var, target: Var) -> Var:
    """Compute all pairs together, with as many steps as the longest of their paths has."""
    sign = op.cast(op.gather(weights["sign"], target), to=np.float32)
    longest = op.reduce_max(concat(ints(1), _lengths(sign)), ints(0))
    sign = between(sign, ints(0), longest, axis=1)
    path = between(op.gather(weights["path"], target), ints(0), longest, axis=1)
    logits = node_logits(weights, op.gather(hidden, row), path)
    steps = log_step(model, op.mul(sign, logits))
    log_prob = op.where(op.equal(sign, real(0.0)), real(0.0), steps)
    return op.reduce_sum(log_prob, ints(1), keepdims=0)


def _sum_paths_in_chunks(
    model: HuffmanSoftmax, weights: Weights, hidden: Var, row: Var, target: Var
) -> Var:
    """Compute a chunk of pairs at a time, longest paths first, so that padding stays small."""
    sign = op.cast(op.gather(weights["sign"], target), to=np.float32)
    _, order = op.top_k(_lengths(sign), length(target))

    def chunk(start: Var, end: Var) -> tuple[Var]:
        indices = between(order, start, end)
        pairs = (op.gather(row, indices), op.gather(target, indices))
        return (_sum_paths(model, weights, hidden, *pairs),)

    (results,) = map_chunks(length(target), _MAX_PAIRS_PER_CHUNK, chunk)
    return op.scatter_elements(results, order, results)


def _lengths(sign: Var) -> Var:
    return as_int(op.reduce_sum(op.abs(sign), ints(1), keepdims=0))


# --- full distribution ----------------------------------------------------------------------------


def log_probs(model: HuffmanSoftmax, weights: Weights, hidden: Var) -> tuple[Var]:
    """hidden [B, H] -> log_probs [B, N]."""
    if model.num_targets == 1:
        return (full(concat(length(hidden), ints(1)), 0.0),)
    logits = _products(weights, to_columns(hidden, model.hidden_size))
    if model.bias is not None:
        logits = op.add(logits, weights.view("bias", model.num_nodes, 1))
    if model.path.size > MAX_TABLE_STEPS:
        return (_by_depth(model, weights, logits),)
    steps = op.mul(count(hidden), integer(model.path.size))
    return (
        op.if_(
            op.less_or_equal(steps, integer(_MAX_TABLE_STEPS_PER_BATCH)),
            then_branch=lambda: [_by_step_table(model, weights, logits)],
            else_branch=lambda: [_by_depth(model, weights, logits)],
        )[0],
    )


def _products(weights: Weights, columns: Var) -> Var:
    """columns [H, B] -> [nodes, B]: the product of every node's weight."""
    if weights.dtype("syn1") != np.float32:
        return converted_product(weights, "syn1", columns)
    return op.matmul(weights["syn1"], columns)


def _by_step_table(model: HuffmanSoftmax, weights: Weights, logits: Var) -> Var:
    """logits [nodes, B] -> [B, N]: gather every step of every path at once; for small trees."""
    by_row = transpose(logits)
    branches = log_branches(model, by_row)
    no_step = full(concat(length(by_row), ints(1)), 0.0)
    steps = op.gather(concat(*branches, no_step, axis=1), weights["steps"], axis=1)
    return op.reduce_sum(steps, ints(2), keepdims=0)


def _by_depth(model: HuffmanSoftmax, weights: Weights, logits: Var) -> Var:
    """logits [nodes, B] -> [B, N]: compute log p of each depth from that of the depth above."""
    first_node, first_leaf = weights["first_node"], weights["first_leaf"]

    def descend(d: Var, condition: Var, node_log_prob: Var, leaves: Var) -> list[Var]:
        depth, below, after = (vector(op.add(d, integer(i))) for i in (0, 1, 2))
        node_start, node_end, next_node_end = (
            op.gather(first_node, i) for i in (depth, below, after)
        )
        depth_logits = op.gather(logits, between(weights["order"], node_start, node_end))
        child_log_prob = concat(
            *(op.add(node_log_prob, branch) for branch in log_branches(model, depth_logits))
        )
        # `inner_from` has no entry for the root.
        inner = between(
            weights["inner_from"], op.sub(node_end, ints(1)), op.sub(next_node_end, ints(1))
        )
        leaf_index = between(
            weights["leaf_from"], op.gather(first_leaf, depth), op.gather(first_leaf, below)
        )
        return [
            true(),
            op.gather(child_log_prob, inner),
            concat(leaves, op.gather(child_log_prob, leaf_index)),
        ]

    batch = length(logits, axis=1)
    start = [full(concat(ints(1), batch), 0.0), full(concat(ints(0), batch), 0.0)]
    _, leaves = op.loop(integer(model.depth), v_initial=start, body=descend)
    return transpose(op.gather(leaves, weights["leaf_place"]))


# --- sample ---------------------------------------------------------------------------------------


def sample(model: HuffmanSoftmax, weights: Weights, hidden: Var, noise: Var) -> tuple[Var, Var]:
    """hidden [B, H], noise [B, S, depth] in [0, 1) -> target [B, S], log_prob [B, S].

    One uniform number per step chooses a branch of the node by its probability. log_prob equals the
    result of target_log_prob.
    """
    shape = op.shape(noise, start=0, end=2)
    if model.num_targets == 1:
        return full(shape, 0), full(shape, 0.0)

    def chunk(start: Var, end: Var) -> tuple[Var, Var]:
        return _sample_paths(
            model, weights, between(hidden, start, end), between(noise, start, end)
        )

    target, log_prob = map_chunks(length(hidden), _MAX_ROWS_PER_CHUNK, chunk)
    return op.reshape(target, shape), op.reshape(log_prob, shape)


def _sample_paths(
    model: HuffmanSoftmax, weights: Weights, hidden: Var, noise: Var
) -> tuple[Var, Var]:
    shape = op.shape(noise, start=0, end=2)

    def step(d: Var, condition: Var, position: Var, total: Var) -> list[Var]:
        walking = op.greater_or_equal(position, integer(0))
        node = op.max([position, integer(0)])
        logits = node_logits(weights, hidden, node)
        is_positive = op.less(op.gather(noise, scalar(d), axis=2), op.sigmoid(logits))
        signed = op.where(is_positive, logits, op.neg(logits))
        child = op.gather_nd(weights["children"], _branch_index(node, is_positive))
        position = op.where(walking, as_int(child), position)
        total = op.add(total, op.where(walking, log_step(model, signed), real(0.0)))
        largest = op.reduce_max(position, keepdims=0)
        return [op.greater_or_equal(largest, integer(0)), position, total]

    root = op.expand(integer(int(model.path[0, 0])), shape)
    position, total = op.loop(integer(model.depth), v_initial=[root, full(shape, 0.0)], body=step)
    return op.sub(integer(-1), position), total


def _branch_index(node: Var, is_positive: Var) -> Var:
    """node [B, S], is_positive [B, S] -> [B, S, 2]: indices into `children`."""
    return op.concat(
        [op.unsqueeze(node, ints(2)), op.unsqueeze(as_int(is_positive), ints(2))], axis=2
    )
