"""A binary tree in a graph: logits of chosen nodes, log p of a step, and the tables to walk it.

children [nodes, 2] int32: where a node's branches of sign -1 and +1 lead; the leaf of target t is
    -1 - t.
steps [targets, depth] int32: for trees so small that every step of every path is looked up at
    once: which of all branches it takes (-1 branches, then +1 branches, then one of log p 0).
order, first_node, inner_from, leaf_from, first_leaf, leaf_place: the tree by depth. `order` lists
    the nodes that paths go through, those of depth d at first_node[d]:first_node[d + 1]. Their 2 m
    children are numbered -1 branches first; `inner_from` says which of them is each next node in
    `order`, `leaf_from` which is each leaf, the leaves of depth d + 1 being at
    first_leaf[d]:first_leaf[d + 1]. `leaf_place` is where among the leaves each target is.
"""

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from hsoftmax.models import HuffmanSoftmax
from hsoftmax.models.arrays import Array
from hsoftmax.models.binary_tree import leaf
from hsoftmax.models.huffman_softmax import FASTTEXT_FLOOR

from .ops import ints, real
from .weights import Weights

LOOKED_UP = 1 << 18  # steps of all paths, up to which the table `steps` is worth its place


def tree_tensors(model: HuffmanSoftmax) -> dict[str, Array]:
    """The tables of this model's graphs, by name."""
    tables: dict[str, Array] = {"children": model.children, **_by_depth(model)}
    if model.path.size <= LOOKED_UP:
        branch = model.path + np.where(model.sign > 0, model.num_nodes, 0)
        nothing = np.int64(2 * model.num_nodes)
        tables["steps"] = np.where(model.sign == 0, nothing, branch).astype(np.int32)
    return tables


def _by_depth(model: HuffmanSoftmax) -> dict[str, Array]:
    inner = model.path[:1, 0] if model.num_targets > 1 else np.empty(0, dtype=np.int32)
    order: list[Array] = [inner]
    inner_from: list[Array] = []
    leaf_from: list[Array] = []
    leaves: list[Array] = []
    while len(inner):
        below = model.children[inner].T.ravel()
        inner_from.append(np.flatnonzero(below >= 0))
        leaf_from.append(np.flatnonzero(below < 0))
        leaves.append(leaf(below[leaf_from[-1]]))
        inner = below[inner_from[-1]]
        order.append(inner)
    return {
        "order": np.concatenate(order).astype(np.int32),
        "first_node": _starts(order),
        "inner_from": _joined(inner_from),
        "leaf_from": _joined(leaf_from),
        "first_leaf": _starts(leaves),
        "leaf_place": np.argsort(_joined(leaves)).astype(np.int32),
    }


def _starts(parts: list[Array]) -> Array:
    return np.cumsum([0, *map(len, parts)])


def _joined(parts: list[Array]) -> Array:
    return np.concatenate([np.empty(0, dtype=np.int32), *parts]).astype(np.int32)


def node_logits(weights: Weights, hidden: Var, node: Var) -> Var:
    """hidden [B, H], node [B, M] -> syn1[node[b, m]] . hidden[b], [B, M]; reads B * M rows."""
    products = op.matmul(op.gather(weights["syn1"], node), op.unsqueeze(hidden, ints(2)))
    return op.squeeze(products, ints(2))


def log_step(model: HuffmanSoftmax, logits: Var) -> Var:
    """log sigmoid, without overflow; or fastText's log(sigmoid + 1e-5)."""
    return _floored(model, op.neg(op.softplus(op.neg(logits))))


def log_branches(model: HuffmanSoftmax, logits: Var) -> tuple[Var, Var]:
    """log p of the -1 and of the +1 branch, with half the work of two `log_step`.

    log sigmoid(z) = -(max(-z, 0) + t),  log sigmoid(-z) = -(max(z, 0) + t),  t = log(1 + e^-|z|)
    """
    shared = op.log(op.add(op.exp(op.neg(op.abs(logits))), real(1.0)))
    down, up = (op.neg(op.add(op.relu(z), shared)) for z in (logits, op.neg(logits)))
    return _floored(model, down), _floored(model, up)


def _floored(model: HuffmanSoftmax, log_sigmoid: Var) -> Var:
    if model.compat == "exact":
        return log_sigmoid
    return op.log(op.add(op.exp(log_sigmoid), real(FASTTEXT_FLOOR)))
