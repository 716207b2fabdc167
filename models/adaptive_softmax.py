"""Adaptive softmax: the head scores frequent targets; each tail scores a band of rare ones.

    log p(target) = head[target]                                        target < cutoffs[0]
                  = head[shortlist + i] + log_softmax(tail i)[target - cutoffs[i]]    otherwise

Reference: Grave et al., arXiv 1609.04309. The adaptive softmaxes of PyTorch, Transformer-XL and
fairseq all have this form and differ in their biases and projections. The rows of the head are the
shortlist, then one row per tail, in the order of the tails.

The reference functions use NumPy in float64, share no code with the ONNX graphs, and serve to
verify them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from . import projected
from .arrays import Array, Float64, Int64, expect_hidden, expect_shape
from .errors import WeightsError
from .projected import ProjectedLayer, build_projected, log_softmax
from .ranking import top_k_of
from .validation import expect_pairs

__all__ = [
    "AdaptiveSoftmax",
    "ProjectedLayer",
    "attributes",
    "build",
    "build_projected",
    "cluster_log_probs",
    "from_tensors",
    "largest_logit",
    "log_probs",
    "target_log_prob",
    "to_tensors",
    "top_k",
]

_PARTS = ("weight", "bias", "projection")


@dataclass(frozen=True)
class AdaptiveSoftmax:
    """A head and its tails.

    Attributes:
        head: [shortlist + tails] rows
        tails: tail i holds the targets from cutoffs[i] up to the next cutoff, one per row
    """

    head: ProjectedLayer
    tails: tuple[ProjectedLayer, ...]

    @property
    def hidden_size(self) -> int:
        return self.head.hidden_size

    @property
    def shortlist(self) -> int:
        """Number of targets that are rows of the head."""
        return self.head.num_rows - len(self.tails)

    @property
    def num_clusters(self) -> int:
        """Number of rows of the head: each shortlisted target and each tail is one cluster."""
        return self.head.num_rows

    @property
    def num_targets(self) -> int:
        return int(self.bounds[-1])

    @cached_property
    def bounds(self) -> Int64:
        """[tails + 1]: the first target of each tail, then the number of targets."""
        return np.cumsum([self.shortlist, *(tail.num_rows for tail in self.tails)], dtype=np.int64)

    @property
    def cutoffs(self) -> tuple[int, ...]:
        """The first target of each tail, as in PyTorch's `cutoffs` argument."""
        return tuple(int(bound) for bound in self.bounds[:-1])


# --- building -----------------------------------------------------------------------------------


def build(head: ProjectedLayer, tails: Sequence[ProjectedLayer]) -> AdaptiveSoftmax:
    """Build and check a model.

    Raises:
        WeightsError: no tail, no shortlist, or a layer of another hidden size than the head.
    """
    if not tails:
        raise WeightsError("tails: expected at least one, got none")
    if head.num_rows <= len(tails):
        raise WeightsError(
            f"head weight: expected more than {len(tails)} rows for {len(tails)} tails and a "
            f"shortlist, got {head.num_rows}"
        )
    hidden_size = head.hidden_size
    if hidden_size < 1:
        raise WeightsError("hidden_size: expected at least 1, got 0")
    for i, tail in enumerate(tails):
        _expect_hidden_size(f"tail {i}", tail, hidden_size)
    return AdaptiveSoftmax(head, tuple(tails))


def _expect_hidden_size(name: str, tail: ProjectedLayer, hidden_size: int) -> None:
    if tail.projection is None:
        expect_shape(f"{name} weight", tail.weight, (tail.num_rows, hidden_size))
    else:
        expect_shape(f"{name} projection", tail.projection, (tail.width, hidden_size))


# --- conversion to and from a bundle's tensors ---------------------------------------------------


def to_tensors(model: AdaptiveSoftmax) -> dict[str, Array]:
    """Return the model's arrays by their names in the bundle."""
    layers = {"head": model.head} | {f"tail{i}": tail for i, tail in enumerate(model.tails)}
    tensors: dict[str, Array] = {}
    for name, layer in layers.items():
        for part in _PARTS:
            array = getattr(layer, part)
            if array is not None:
                tensors[f"{name}.{part}"] = array
    return tensors


def attributes(model: AdaptiveSoftmax) -> dict[str, Any]:
    """Return the values that `from_tensors` needs besides the arrays."""
    return {"cutoffs": list(model.cutoffs)}


def from_tensors(tensors: Mapping[str, Array], attributes: Mapping[str, Any]) -> AdaptiveSoftmax:
    """Build the model from `to_tensors` and `attributes` results, without copies or checks."""
    tail_numbers = range(len(attributes["cutoffs"]))
    return AdaptiveSoftmax(
        _layer_from_tensors(tensors, "head"),
        tuple(_layer_from_tensors(tensors, f"tail{i}") for i in tail_numbers),
    )


def _layer_from_tensors(tensors: Mapping[str, Array], name: str) -> ProjectedLayer:
    return ProjectedLayer(
        tensors[f"{name}.weight"], tensors.get(f"{name}.bias"), tensors.get(f"{name}.projection")
    )


# --- reference ----------------------------------------------------------------------------------


def log_probs(model: AdaptiveSoftmax, hidden: Array) -> Float64:
    """Return log p of every target, [batch, num_targets]."""
    head = cluster_log_probs(model, hidden)
    states = np.asarray(hidden, dtype=np.float64)
    parts = [head[:, : model.shortlist]]
    for i, tail in enumerate(model.tails):
        parts.append(head[:, [model.shortlist + i]] + log_softmax(tail, states))
    return np.concatenate(parts, axis=1)


def cluster_log_probs(model: AdaptiveSoftmax, hidden: Array) -> Float64:
    """Return log p of every row of the head, [batch, shortlist + tails]."""
    expect_hidden(hidden, model.hidden_size)
    return log_softmax(model.head, np.asarray(hidden, dtype=np.float64))


def target_log_prob(model: AdaptiveSoftmax, hidden: Array, row: Array, target: Array) -> Float64:
    """Return log p of `target[i]` given `hidden[row[i]]` for every pair i, [pairs].

    It computes one path per pair.

    Raises:
        QueryError: a wrong width, or a row or target out of range.
    """
    expect_pairs(hidden, row, target, hidden_size=model.hidden_size, num_targets=model.num_targets)
    states = np.asarray(hidden, dtype=np.float64)
    paths = [_path_log_prob(model, states[[r]], t) for r, t in zip(row, target, strict=True)]
    return np.array(paths, dtype=np.float64)


def top_k(model: AdaptiveSoftmax, hidden: Array, k: int) -> tuple[Float64, Int64]:
    """Return (log p, target) of the k most likely targets, [batch, k]; ties: lower target first."""
    return top_k_of(log_probs(model, hidden), k)


def largest_logit(model: AdaptiveSoftmax, hidden: Array) -> float:
    """Return an upper bound of |logit| over all rows and targets.

    Rounding errors of float32 graphs grow in proportion to it, and so do the tolerances.
    """
    return max(projected.largest_logit(layer, hidden) for layer in (model.head, *model.tails))


def _path_log_prob(model: AdaptiveSoftmax, state: Float64, target: int) -> float:
    """Return log p of one target, from the head and, unless the shortlist holds it, its tail."""
    head = log_softmax(model.head, state)[0]
    if target < model.shortlist:
        return float(head[target])
    i = int(np.searchsorted(model.bounds, target, side="right")) - 1
    tail = log_softmax(model.tails[i], state)[0]
    return float(head[model.shortlist + i] + tail[target - model.bounds[i]])
