"""Softmax over a binary tree: p(target) is the product of one sigmoid per node of its path.

    log p(target | hidden) = sum over steps of log sigmoid(sign * syn1[node] . hidden)

Frequent targets have short paths, so a query costs about log2 of how rare its target is. word2vec,
gensim and fastText train it as `hs`; Morin and Bengio (2005) had it first.

fastText itself reports `sum of log(sigmoid + 1e-5)`, which is near but is not a log-probability:
compat="fasttext" keeps those scores to the digit.

The functions here are the reference: NumPy, float64, written for clarity. They share nothing with
the graphs, which are checked against them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .arrays import Array, Float32, Float64, Int64, expect_hidden, expect_ndim, floats
from .binary_tree import Int8, Int32, build_paths, children
from .choices import Compat
from .errors import WeightsError
from .ranking import likeliest
from .validation import expect_pairs

__all__ = [
    "FASTTEXT_FLOOR",
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

FASTTEXT_FLOOR = 1e-5  # what fastText adds to each sigmoid before its logarithm
_NODES_AT_ONCE = 65_536  # bounds the float64 copy of the weights that the reference makes


@dataclass(frozen=True)
class HuffmanSoftmax:
    """Weights of the inner nodes of a binary tree, and the path to each target's leaf.

    Attributes:
        syn1: [nodes, hidden_size]; rows that no path names are not used
        path: [targets, depth] the nodes from the root down; 0 where there is no step
        sign: [targets, depth] +1 where P(step) = sigmoid(z), -1 where sigmoid(-z), 0 for no step
        compat: "exact" for probabilities that sum to one, "fasttext" for that library's scores
    """

    syn1: Float32
    path: Int32
    sign: Int8
    compat: Compat = "exact"

    @property
    def hidden_size(self) -> int:
        return int(self.syn1.shape[1])

    @property
    def num_targets(self) -> int:
        return len(self.path)

    @property
    def num_clusters(self) -> None:
        """A binary tree has no level of clusters."""
        return

    @property
    def num_nodes(self) -> int:
        return len(self.syn1)

    @property
    def depth(self) -> int:
        """Steps to the deepest leaf, at least 1."""
        return int(self.path.shape[1])

    @cached_property
    def lengths(self) -> Int64:
        """[targets]: steps to each leaf."""
        lengths: Int64 = np.count_nonzero(self.sign, axis=1)
        return lengths

    @cached_property
    def children(self) -> Int32:
        """[nodes, 2]: where the branches of sign -1 and +1 lead, see `binary_tree`."""
        return children(self.path, self.sign, num_nodes=self.num_nodes)


# --- building -----------------------------------------------------------------------------------


def build(syn1: Array, path: Array, sign: Array, *, compat: Compat = "exact") -> HuffmanSoftmax:
    """A checked model.

    Raises:
        WeightsError: arrays that do not fit each other, or paths that are not one binary tree with
            exactly one leaf for each target.
    """
    expect_ndim("syn1", syn1, "nodes", "hidden_size")
    if syn1.shape[1] < 1:
        raise WeightsError("hidden_size: expected at least 1, got 0")
    if compat not in ("exact", "fasttext"):
        raise WeightsError(f"compat: expected exact or fasttext, got {compat}")
    weights = floats("syn1", syn1) if len(syn1) else np.zeros((1, syn1.shape[1]), np.float32)
    return HuffmanSoftmax(weights, *build_paths(path, sign, num_nodes=len(weights)), compat)


# --- as named arrays, the form in which a bundle stores it ----------------------------------------


def to_tensors(model: HuffmanSoftmax) -> dict[str, Array]:
    """Every array of the model, by its name in the bundle."""
    return {"syn1": model.syn1, "path": model.path, "sign": model.sign}


def attributes(model: HuffmanSoftmax) -> dict[str, Any]:
    """What `from_tensors` needs besides the arrays, and how long paths are."""
    return {
        "compat": model.compat,
        "depth": model.depth,
        "mean_depth": round(float(model.lengths.mean()), 3),
    }


def from_tensors(tensors: Mapping[str, Array], attributes: Mapping[str, Any]) -> HuffmanSoftmax:
    """The model whose `to_tensors` and `attributes` these are; nothing is copied or checked."""
    return HuffmanSoftmax(
        tensors["syn1"], tensors["path"], tensors["sign"], attributes.get("compat", "exact")
    )


# --- the reference ------------------------------------------------------------------------------


def log_probs(model: HuffmanSoftmax, hidden: Array) -> Float64:
    """log p of every target, [batch, num_targets]; under compat="fasttext" its scores."""
    expect_hidden(hidden, model.hidden_size)
    logits = _node_logits(model, np.asarray(hidden, dtype=np.float64))
    branches = np.stack([_log_step(model, -logits), _log_step(model, logits)], axis=2)
    total = np.zeros((len(hidden), model.num_targets))
    for d in range(model.depth):
        some = np.flatnonzero(model.sign[:, d])
        up = (model.sign[some, d] > 0).astype(np.int64)
        total[:, some] += branches[:, model.path[some, d], up]
    return total


def target_log_prob(model: HuffmanSoftmax, hidden: Array, row: Array, target: Array) -> Float64:
    """log p of `target[i]` given `hidden[row[i]]`, one path each, [pairs].

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
    """The k likeliest targets: (log p, target), both [batch, k]; ties go to the lower target."""
    return likeliest(log_probs(model, hidden), k)


def largest_logit(model: HuffmanSoftmax, hidden: Array) -> float:
    """The largest sum of |logit| + log 2 along a path: what float32 rounding is in proportion to.

    A log p is a sum over steps, and may be as large as that: log 2 a step where all logits are 0.
    """
    states = np.asarray(hidden, dtype=np.float32)
    logits = np.abs(model.syn1 @ states.T) + np.log(2)
    sums = np.zeros((model.num_targets, len(states)))
    for d in range(model.depth):
        some = np.flatnonzero(model.sign[:, d])
        sums[some] += logits[model.path[some, d]]
    return float(sums.max())


def _path_log_prob(model: HuffmanSoftmax, state: Float64, target: int) -> float:
    steps = slice(0, model.lengths[target])
    node, sign = model.path[target, steps], model.sign[target, steps]
    return float(_log_step(model, sign * (model.syn1[node].astype(np.float64) @ state)).sum())


def _log_step(model: HuffmanSoftmax, logits: Float64) -> Float64:
    """log sigmoid, without overflow; or fastText's log(sigmoid + 1e-5)."""
    log_sigmoid: Float64 = -np.logaddexp(0, -logits)
    if model.compat == "exact":
        return log_sigmoid
    floored: Float64 = np.log(np.exp(log_sigmoid) + FASTTEXT_FLOOR)
    return floored


def _node_logits(model: HuffmanSoftmax, states: Float64) -> Float64:
    out = np.empty((len(states), model.num_nodes))
    for start in range(0, model.num_nodes, _NODES_AT_ONCE):
        some = slice(start, start + _NODES_AT_ONCE)
        out[:, some] = states @ model.syn1[some].astype(np.float64).T
    return out
