"""Adaptive softmax: frequent targets in the head, rare ones in tails that the head has a row for.

    log p(target) = head[target]                                        target < cutoffs[0]
                  = head[shortlist + i] + log_softmax(tail i)[target - cutoffs[i]]    otherwise

Grave et al., arXiv 1609.04309. PyTorch's, Transformer-XL's and fairseq's are all of this form: they
differ in which biases and projections there are. Rows of the head: the shortlist, then one for each
tail, in the order of the tails.

The functions here are the reference: NumPy, float64, written for clarity. They share nothing with
the graphs, which are checked against them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from . import projected
from .arrays import Array, Float64, Int64, expect_hidden, expect_shape
from .errors import WeightsError
from .projected import Projected, build_projected, log_softmax
from .ranking import likeliest
from .validation import expect_pairs

__all__ = [
    "AdaptiveSoftmax",
    "Projected",
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
        tails: tail i holds the targets from cutoffs[i] up to the next cutoff, one a row
    """

    head: Projected
    tails: tuple[Projected, ...]

    @property
    def hidden_size(self) -> int:
        return self.head.hidden_size

    @property
    def shortlist(self) -> int:
        """How many targets are rows of the head."""
        return self.head.num_rows - len(self.tails)

    @property
    def num_clusters(self) -> int:
        """Rows of the head: every shortlisted target is a cluster of its own."""
        return self.head.num_rows

    @property
    def num_targets(self) -> int:
        return int(self.bounds[-1])

    @cached_property
    def bounds(self) -> Int64:
        """[tails + 1]: the first target of each tail, and the number of targets."""
        return np.cumsum([self.shortlist, *(tail.num_rows for tail in self.tails)], dtype=np.int64)

    @property
    def cutoffs(self) -> tuple[int, ...]:
        """The first target of each tail, as PyTorch was given them."""
        return tuple(int(bound) for bound in self.bounds[:-1])


# --- building -----------------------------------------------------------------------------------


def build(head: Projected, tails: Sequence[Projected]) -> AdaptiveSoftmax:
    """A checked model.

    Raises:
        WeightsError: no tail, no shortlist, or a layer that reads another width of hidden state.
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


def _expect_hidden_size(name: str, tail: Projected, hidden_size: int) -> None:
    if tail.projection is None:
        expect_shape(f"{name} weight", tail.weight, (tail.num_rows, hidden_size))
    else:
        expect_shape(f"{name} projection", tail.projection, (tail.width, hidden_size))


# --- as named arrays, the form in which a bundle stores it ----------------------------------------


def to_tensors(model: AdaptiveSoftmax) -> dict[str, Array]:
    """Every array of the model, by its name in the bundle."""
    layers = {"head": model.head} | {f"tail{i}": tail for i, tail in enumerate(model.tails)}
    tensors: dict[str, Array] = {}
    for name, layer in layers.items():
        for part in _PARTS:
            array = getattr(layer, part)
            if array is not None:
                tensors[f"{name}.{part}"] = array
    return tensors


def attributes(model: AdaptiveSoftmax) -> dict[str, Any]:
    """What `from_tensors` needs besides the arrays."""
    return {"cutoffs": list(model.cutoffs)}


def from_tensors(tensors: Mapping[str, Array], attributes: Mapping[str, Any]) -> AdaptiveSoftmax:
    """The model whose `to_tensors` and `attributes` these are; nothing is copied or checked."""
    tails = range(len(attributes["cutoffs"]))
    return AdaptiveSoftmax(
        _layer(tensors, "head"), tuple(_layer(tensors, f"tail{i}") for i in tails)
    )


def _layer(tensors: Mapping[str, Array], name: str) -> Projected:
    return Projected(
        tensors[f"{name}.weight"], tensors.get(f"{name}.bias"), tensors.get(f"{name}.projection")
    )


# --- the reference ------------------------------------------------------------------------------


def log_probs(model: AdaptiveSoftmax, hidden: Array) -> Float64:
    """log p of every target, [batch, num_targets]."""
    head = cluster_log_probs(model, hidden)
    states = np.asarray(hidden, dtype=np.float64)
    parts = [head[:, : model.shortlist]]
    for i, tail in enumerate(model.tails):
        parts.append(head[:, [model.shortlist + i]] + log_softmax(tail, states))
    return np.concatenate(parts, axis=1)


def cluster_log_probs(model: AdaptiveSoftmax, hidden: Array) -> Float64:
    """log p of every row of the head, [batch, shortlist + tails]."""
    expect_hidden(hidden, model.hidden_size)
    return log_softmax(model.head, np.asarray(hidden, dtype=np.float64))


def target_log_prob(model: AdaptiveSoftmax, hidden: Array, row: Array, target: Array) -> Float64:
    """log p of `target[i]` given `hidden[row[i]]`, one path each, [pairs].

    Raises:
        QueryError: a wrong width, or a row or target out of range.
    """
    expect_pairs(hidden, row, target, hidden_size=model.hidden_size, num_targets=model.num_targets)
    states = np.asarray(hidden, dtype=np.float64)
    paths = [_path_log_prob(model, states[[r]], t) for r, t in zip(row, target, strict=True)]
    return np.array(paths, dtype=np.float64)


def top_k(model: AdaptiveSoftmax, hidden: Array, k: int) -> tuple[Float64, Int64]:
    """The k likeliest targets: (log p, target), both [batch, k]; ties go to the lower target."""
    return likeliest(log_probs(model, hidden), k)


def largest_logit(model: AdaptiveSoftmax, hidden: Array) -> float:
    """A bound on |logit| over all rows and targets: what float32 rounding is in proportion to."""
    return max(projected.largest_logit(layer, hidden) for layer in (model.head, *model.tails))


def _path_log_prob(model: AdaptiveSoftmax, state: Float64, target: int) -> float:
    """The head, and the one tail that holds the target if the shortlist does not."""
    head = log_softmax(model.head, state)[0]
    if target < model.shortlist:
        return float(head[target])
    i = int(np.searchsorted(model.bounds, target, side="right")) - 1
    tail = log_softmax(model.tails[i], state)[0]
    return float(head[model.shortlist + i] + tail[target - model.bounds[i]])
