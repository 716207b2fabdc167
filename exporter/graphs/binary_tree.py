"""Graph functions and lookup tables for a binary tree.

children [nodes, 2] int32: the children on a node's branches of sign -1 and +1; the leaf of target t
    is -1 - t.
steps [targets, depth] int32: the branch that each step of each path takes, among all branches (-1
    branches, then +1 branches, then one of log p 0 for padding). It exists for small trees only.
order, first_node, inner_from, leaf_from, first_leaf, leaf_place: the tree by depth. `order` lists
    the nodes on paths, those of depth d at first_node[d]:first_node[d + 1]. The 2 m children of
    these m nodes are numbered with the -1 branches first; `inner_from` holds this number for each
    next node in `order`, and `leaf_from` for each leaf. The leaves of depth d + 1 are at
    first_leaf[d]:first_leaf[d + 1]; `leaf_place` is the position of each target among all leaves.
"""

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from hsoftmax.models import HuffmanSoftmax
from hsoftmax.models.arrays import Array
from hsoftmax.models.huffman_softmax import FASTTEXT_EPSILON
from hsoftmax.models.storage.precision import scale_name
from hsoftmax.models.tree_paths import encode_leaf

from .ops import as_float, ints, real
from .weights import Weights

MAX_TABLE_STEPS = 1 << 18  # larger trees have no table `steps`


def tree_tensors(model: HuffmanSoftmax) -> dict[str, Array]:
    """Return the tables of this model's graphs by name."""
    tables: dict[str, Array] = {"children": model.children, **_depth_tables(model)}
    if model.path.size <= MAX_TABLE_STEPS:
        branch = model.path + np.where(model.sign > 0, model.num_nodes, 0)
        no_step = np.int64(2 * model.num_nodes)
        tables["steps"] = np.where(model.sign == 0, no_step, branch).astype(np.int32)
    return tables


def _depth_tables(model: HuffmanSoftmax) -> dict[str, Array]:
    inner = model.path[:1, 0] if model.num_targets > 1 else np.empty(0, dtype=np.int32)
    order: list[Array] = [inner]
    inner_from: list[Array] = []
    leaf_from: list[Array] = []
    leaves: list[Array] = []
    while len(inner):
        children = model.children[inner].T.ravel()
        inner_from.append(np.flatnonzero(children >= 0))
        leaf_from.append(np.flatnonzero(children < 0))
        leaves.append(encode_leaf(children[leaf_from[-1]]))
        inner = children[inner_from[-1]]
        order.append(inner)
    return {
        "order": np.concatenate(order).astype(np.int32),
        "first_node": _starts(order),
        "inner_from": _concat_int32(inner_from),
        "leaf_from": _concat_int32(leaf_from),
        "first_leaf": _starts(leaves),
        "leaf_place": np.argsort(_concat_int32(leaves)).astype(np.int32),
    }


def _starts(parts: list[Array]) -> Array:
    return np.cumsum([0, *map(len, parts)])


def _concat_int32(parts: list[Array]) -> Array:
    return np.concatenate([np.empty(0, dtype=np.int32), *parts]).astype(np.int32)


def node_logits(weights: Weights, hidden: Var, node: Var) -> Var:
    """hidden [B, H], node [B, M] -> syn1[node[b, m]] . hidden[b] + bias[node[b, m]], [B, M].

    It reads B * M rows of syn1, and converts those in fewer bits.
    """
    rows = as_float(op.gather(weights["syn1"], node))
    logits = op.squeeze(op.matmul(rows, op.unsqueeze(hidden, ints(2))), ints(2))
    scale = scale_name("syn1")
    if scale in weights:
        logits = op.mul(logits, op.gather(weights[scale], node))
    return op.add(logits, op.gather(weights["bias"], node)) if "bias" in weights else logits


def log_step(model: HuffmanSoftmax, logits: Var) -> Var:
    """Return log sigmoid without overflow, or fastText's log(sigmoid + 1e-5)."""
    return _with_epsilon(model, op.neg(op.softplus(op.neg(logits))))


def log_branches(model: HuffmanSoftmax, logits: Var) -> tuple[Var, Var]:
    """Return log p of the -1 and of the +1 branch, at half the cost of two `log_step`.

    log sigmoid(z) = -(max(-z, 0) + t),  log sigmoid(-z) = -(max(z, 0) + t),  t = log(1 + e^-|z|)
    """
    shared = op.log(op.add(op.exp(op.neg(op.abs(logits))), real(1.0)))
    negative, positive = (op.neg(op.add(op.relu(z), shared)) for z in (logits, op.neg(logits)))
    return _with_epsilon(model, negative), _with_epsilon(model, positive)


def _with_epsilon(model: HuffmanSoftmax, log_sigmoid: Var) -> Var:
    if model.compat == "exact":
        return log_sigmoid
    return op.log(op.add(op.exp(log_sigmoid), real(FASTTEXT_EPSILON)))
