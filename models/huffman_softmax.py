"""Softmax over a binary tree: p(target) is the product of one sigmoid per node of its path.

    log p(target | hidden) = sum over steps of log sigmoid(sign * z)
    z = syn1[node] . hidden + bias[node]

Frequent targets have short paths: the cost of a query is about -log2 of the target's frequency.
word2vec, gensim and fastText train it under the name `hs`, without biases; Morin and Bengio (2005)
introduced it.

fastText reports `sum of log(sigmoid + 1e-5)`, which is close to a log-probability but is not one.
compat="fasttext" reproduces these scores.

The reference functions use NumPy in float64, share no code with the ONNX graphs, and serve to
verify them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .arrays import (
    Array,
    Float32,
    Float64,
    Int64,
    expect_hidden,
    expect_ndim,
    expect_shape,
    to_float32,
)
from .choices import Compat
from .errors import WeightsError
from .ranking import top_k_of
from .tree_paths import Int8, Int32, build_children, build_paths
from .validation import expect_pairs

__all__ = [
    "FASTTEXT_EPSILON",
    "HuffmanSoftmax",
    "attributes",
    "build",
    "from_tensors",
    "largest_logit",
    "log_probs",
    "target_log_prob",
    "to_tensors",
    "top_k",
]

FASTTEXT_EPSILON = 1e-5  # fastText adds it to each sigmoid before the logarithm
_MAX_NODES_PER_CHUNK = 65_536  # bounds the reference's float64 copy of the weights


@dataclass(frozen=True)
class HuffmanSoftmax:
    """Weights of the inner nodes of a binary tree, and the path to each target's leaf.

    Attributes:
        syn1: [nodes, hidden_size]; rows of nodes that are on no path are not used
        path: [targets, depth] the nodes from the root down; 0 where there is no step
        sign: [targets, depth] +1 where P(step) = sigmoid(z), -1 where sigmoid(-z), 0 for no step
        compat: "exact" for probabilities that sum to one, "fasttext" for that library's scores
        bias: [nodes], or None for no bias
    """

    syn1: Float32
    path: Int32
    sign: Int8
    compat: Compat = "exact"
    bias: Float32 | None = None

    @property
    def hidden_size(self) -> int:
        return int(self.syn1.shape[1])

    @property
    def num_targets(self) -> int:
        return len(self.path)

    @property
    def num_clusters(self) -> None:
        """None: a binary tree has no level of clusters."""
        return

    @property
    def num_nodes(self) -> int:
        return len(self.syn1)

    @property
    def depth(self) -> int:
        """Number of steps to the deepest leaf, at least 1."""
        return int(self.path.shape[1])

    @cached_property
    def lengths(self) -> Int64:
        """[targets]: the number of steps to each leaf."""
        lengths: Int64 = np.count_nonzero(self.sign, axis=1)
        return lengths

    @cached_property
    def children(self) -> Int32:
        """[nodes, 2]: the children on the branches of sign -1 and +1, see `binary_tree`."""
        return build_children(self.path, self.sign, num_nodes=self.num_nodes)


# --- building -----------------------------------------------------------------------------------


def build(
    syn1: Array,
    path: Array,
    sign: Array,
    *,
    bias: Array | None = None,
    compat: Compat = "exact",
) -> HuffmanSoftmax:
    """Build and check a model.

    Raises:
        WeightsError: arrays that do not fit each other, or paths that are not one binary tree with
            exactly one leaf for each target.
    """
    expect_ndim("syn1", syn1, "nodes", "hidden_size")
    if syn1.shape[1] < 1:
        raise WeightsError("hidden_size: expected at least 1, got 0")
    if compat not in ("exact", "fasttext"):
        raise WeightsError(f"compat: expected exact or fasttext, got {compat}")
    if bias is not None:
        expect_shape("bias", bias, (len(syn1),))
    weights = to_float32("syn1", syn1) if len(syn1) else np.zeros((1, syn1.shape[1]), np.float32)
    paths = build_paths(path, sign, num_nodes=len(weights))
    biases = to_float32("bias", bias) if bias is not None and len(bias) else None
    return HuffmanSoftmax(weights, *paths, compat, biases)


# --- conversion to and from a bundle's tensors ---------------------------------------------------


def to_tensors(model: HuffmanSoftmax) -> dict[str, Array]:
    """Return the model's arrays by their names in the bundle."""
    tensors: dict[str, Array] = {"syn1": model.syn1, "path": model.path, "sign": model.sign}
    return tensors if model.bias is None else {**tensors, "bias": model.bias}


def attributes(model: HuffmanSoftmax) -> dict[str, Any]:
    """Return the values that `from_tensors` needs besides the arrays, and the path lengths."""
    return {
        "compat": model.compat,
        "depth": model.depth,
        "mean_depth": round(float(model.lengths.mean()), 3),
    }


def from_tensors(tensors: Mapping[str, Array], attributes: Mapping[str, Any]) -> HuffmanSoftmax:
    """Build the model from `to_tensors` and `attributes` results, without copies or checks."""
    return HuffmanSoftmax(
        tensors["syn1"],
        tensors["path"],
        tensors["sign"],
        attributes.get("compat", "exact"),
        tensors.get("bias"),
    )


# --- reference ----------------------------------------------------------------------------------


def log_probs(model: HuffmanSoftmax, hidden: Array) -> Float64:
    """Return log p of every target, [batch, num_targets]; with compat="fasttext" its scores."""
    expect_hidden(hidden, model.hidden_size)
    logits = _node_logits(model, np.asarray(hidden, dtype=np.float64))
    branches = np.stack([_log_step(model, -logits), _log_step(model, logits)], axis=2)
    total = np.zeros((len(hidden), model.num_targets))
    for d in range(model.depth):
        targets = np.flatnonzero(model.sign[:, d])
        is_positive = (model.sign[targets, d] > 0).astype(np.int64)
        total[:, targets] += branches[:, model.path[targets, d], is_positive]
    return total


def target_log_prob(model: HuffmanSoftmax, hidden: Array, row: Array, target: Array) -> Float64:
    """Return log p of `target[i]` given `hidden[row[i]]` for every pair i, [pairs].

    It computes one path per pair.

    Raises:
        QueryError: a wrong width, or a row or target out of range.
    """
    size, count = model.hidden_size, model.num_targets
    expect_pairs(hidden, row, target, hidden_size=size, num_targets=count)
    states = np.asarray(hidden, dtype=np.float64)
    return np.array(
        [_path_log_prob(model, states[r], int(t)) for r, t in zip(row, target, strict=True)],
        dtype=np.float64,
    )


def top_k(model: HuffmanSoftmax, hidden: Array, k: int) -> tuple[Float64, Int64]:
    """Return (log p, target) of the k most likely targets, [batch, k]; ties: lower target first."""
    return top_k_of(log_probs(model, hidden), k)


def largest_logit(model: HuffmanSoftmax, hidden: Array) -> float:
    """Return the largest sum of |logit| + log 2 along a path, over all rows and targets.

    Rounding errors of float32 graphs grow in proportion to it. A log p is a sum over steps and may
    be that large: each step adds log 2 where all logits are 0.
    """
    states = np.asarray(hidden, dtype=np.float32)
    logits = np.abs(model.syn1 @ states.T) + np.log(2)
    if model.bias is not None:
        logits += np.abs(model.bias)[:, None]
    sums = np.zeros((model.num_targets, len(states)))
    for d in range(model.depth):
        targets = np.flatnonzero(model.sign[:, d])
        sums[targets] += logits[model.path[targets, d]]
    return float(sums.max())


def _path_log_prob(model: HuffmanSoftmax, state: Float64, target: int) -> float:
    steps = slice(0, model.lengths[target])
    node, sign = model.path[target, steps], model.sign[target, steps]
    logits = model.syn1[node].astype(np.float64) @ state
    if model.bias is not None:
        logits += model.bias[node]
    return float(_log_step(model, sign * logits).sum())


def _log_step(model: HuffmanSoftmax, logits: Float64) -> Float64:
    """Return log sigmoid without overflow, or fastText's log(sigmoid + 1e-5)."""
    log_sigmoid: Float64 = -np.logaddexp(0, -logits)
    if model.compat == "exact":
        return log_sigmoid
    with_epsilon: Float64 = np.log(np.exp(log_sigmoid) + FASTTEXT_EPSILON)
    return with_epsilon


def _node_logits(model: HuffmanSoftmax, states: Float64) -> Float64:
    logits = np.empty((len(states), model.num_nodes))
    for start in range(0, model.num_nodes, _MAX_NODES_PER_CHUNK):
        chunk = slice(start, start + _MAX_NODES_PER_CHUNK)
        logits[:, chunk] = states @ model.syn1[chunk].astype(np.float64).T
    return logits if model.bias is None else logits + model.bias
