"""Softmax over a tree of k levels: p(target) is the product of one local softmax per level.

    log p(target | hidden) = sum over levels of log_softmax(block(path))[position(path)]

A *level* is a matrix of rows. A *block* is the slice of rows that are the children of one row of
the level above; each block is normalised by itself. Two levels of about sqrt(N) rows are Goodman's
class factoring (arXiv cs/0108006) and Theano's `h_softmax`. One level is a plain softmax.

The reference functions use NumPy in float64, share no code with the ONNX graphs, and serve to
verify them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from .arrays import Array, Float64, Int64, expect_hidden, expect_shape, to_int64
from .choices import Padding
from .errors import WeightsError
from .levels import Level, build_level
from .ranking import top_k_of
from .validation import expect_pairs

__all__ = [
    "HierarchicalSoftmax",
    "InnerNodes",
    "Level",
    "attributes",
    "build",
    "build_level",
    "cluster_log_probs",
    "from_tensors",
    "largest_logit",
    "log_probs",
    "row_log_probs",
    "target_log_prob",
    "to_tensors",
    "top_k",
]

INNER_ROWS, INNER_LEVELS = "inner_rows", "inner_levels"  # tensors of a bundle
_MAX_ROWS_PER_CHUNK = 65_536  # bounds the reference's float64 copy of the weights


@dataclass(frozen=True)
class InnerNodes:
    """Rows above the last level whose marginal probability may be asked for, like a target's.

    Inner node i has the number num_targets + i where targets are numbered. Its log-probability is
    the sum of the local log-softmaxes along its own path, which ends above the last level.

    Attributes:
        rows: [nodes] a row of the last level below each node
        levels: [nodes] the level whose row the node is; -1 for the whole tree, of probability 1
    """

    rows: Int64
    levels: Int64

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class HierarchicalSoftmax:
    """The k levels, and the row of the last level for each target.

    Attributes:
        levels: level i + 1 has one block for each row of level i; level 0 has one block
        num_targets: N
        target_rows: [N] row of the last level for each target; None means target t is row t
        padding: the treatment of rows of the last level that are no target: "mask" gives them no
            probability, "theano" lets them keep it, so that rows sum to less than one
        inner: nodes that `target_log_prob` takes besides the targets; no other task knows them
    """

    levels: tuple[Level, ...]
    num_targets: int
    target_rows: Int64 | None = None
    padding: Padding = "mask"
    inner: InnerNodes | None = None

    @property
    def num_inner(self) -> int:
        return 0 if self.inner is None else len(self.inner)

    @property
    def hidden_size(self) -> int:
        return int(self.levels[0].weight.shape[1])

    @property
    def num_clusters(self) -> int:
        return self.levels[0].num_rows

    @cached_property
    def rows(self) -> Int64:
        """[N]: the row of the last level for each target."""
        return np.arange(self.num_targets) if self.target_rows is None else self.target_rows

    @cached_property
    def row_targets(self) -> Int64:
        """[rows of the last level]: the target of each row, or num_targets for a padding row."""
        targets = np.full(self.levels[-1].num_rows, self.num_targets)
        targets[self.rows] = np.arange(self.num_targets)
        return targets


# --- building -----------------------------------------------------------------------------------


def build(
    levels: tuple[Level, ...],
    *,
    num_targets: int,
    target_rows: Array | None = None,
    padding: Padding = "mask",
) -> HierarchicalSoftmax:
    """Build and check a model; with padding="mask" the biases of padding rows become -inf.

    Raises:
        WeightsError: levels that do not fit each other, or targets that do not fit the last one.
    """
    if not levels:
        raise WeightsError("levels: expected at least one, got none")
    _expect_chain(levels)
    rows = None if target_rows is None else to_int64("target_rows", target_rows)
    _expect_target_rows(levels[-1], num_targets, rows)
    model = HierarchicalSoftmax(levels, num_targets, rows, padding)
    return _mask_padding(model) if padding == "mask" else model


def _expect_chain(levels: tuple[Level, ...]) -> None:
    hidden_size = levels[0].weight.shape[1]
    if hidden_size < 1:
        raise WeightsError("hidden_size: expected at least 1, got 0")
    blocks = 1
    for i, level in enumerate(levels):
        expect_shape(f"level {i} weight", level.weight, (level.num_rows, hidden_size))
        if level.num_blocks != blocks:
            raise WeightsError(f"level {i}: expected {blocks} blocks, got {level.num_blocks}")
        blocks = level.num_rows


def _expect_target_rows(last: Level, num_targets: int, rows: Int64 | None) -> None:
    if not 1 <= num_targets <= last.num_rows:
        raise WeightsError(f"num_targets: expected 1 to {last.num_rows}, got {num_targets}")
    if rows is None:
        return
    expect_shape("target_rows", rows, (num_targets,))
    if (rows < 0).any() or (rows >= last.num_rows).any():
        raise WeightsError(
            f"target_rows: expected 0 to {last.num_rows - 1}, got {rows.min()} to {rows.max()}"
        )
    if len(np.unique(rows)) != num_targets:
        raise WeightsError("target_rows: expected a row of its own for each target, got repeats")


def _mask_padding(model: HierarchicalSoftmax) -> HierarchicalSoftmax:
    """Set the biases of rows that have no target below them to -inf.

    A block without any target keeps its biases: its parent is masked, and a block of -inf alone has
    no softmax.
    """
    has_target = model.row_targets < model.num_targets
    levels: list[Level] = []
    for level in reversed(model.levels):
        block_has_target = np.logical_or.reduceat(has_target, level.offsets[:-1])
        is_masked = ~has_target & block_has_target[level.block_of_row]
        bias = np.where(is_masked, np.float32(-np.inf), level.bias)
        levels.insert(0, Level(level.weight, bias, level.offsets))
        has_target = block_has_target
    return replace(model, levels=tuple(levels))


# --- conversion to and from a bundle's tensors ---------------------------------------------------


def to_tensors(model: HierarchicalSoftmax) -> dict[str, Array]:
    """Return the model's arrays by their names in the bundle."""
    tensors: dict[str, Array] = {}
    for i, level in enumerate(model.levels):
        tensors[f"level{i}.weight"] = level.weight
        tensors[f"level{i}.bias"] = level.bias
        tensors[f"level{i}.offsets"] = level.offsets
    if model.target_rows is not None:
        tensors["target_rows"] = model.target_rows
    if model.inner is not None:
        tensors |= {INNER_ROWS: model.inner.rows, INNER_LEVELS: model.inner.levels}
    return tensors


def attributes(model: HierarchicalSoftmax) -> dict[str, Any]:
    """Return the values that `from_tensors` needs besides the arrays."""
    return {
        "levels": len(model.levels),
        "num_targets": model.num_targets,
        "padding": model.padding,
    }


def from_tensors(
    tensors: Mapping[str, Array], attributes: Mapping[str, Any]
) -> HierarchicalSoftmax:
    """Build the model from `to_tensors` and `attributes` results, without copies or checks."""
    levels = tuple(
        Level(*(tensors[f"level{i}.{part}"] for part in ("weight", "bias", "offsets")))
        for i in range(attributes["levels"])
    )
    inner = (
        InnerNodes(tensors[INNER_ROWS], tensors[INNER_LEVELS]) if INNER_ROWS in tensors else None
    )
    return HierarchicalSoftmax(
        levels, attributes["num_targets"], tensors.get("target_rows"), attributes["padding"], inner
    )


# --- reference ----------------------------------------------------------------------------------


def log_probs(model: HierarchicalSoftmax, hidden: Array) -> Float64:
    """Return log p of every target, [batch, num_targets]."""
    return row_log_probs(model, hidden, depth=len(model.levels))[:, model.rows]


def cluster_log_probs(model: HierarchicalSoftmax, hidden: Array) -> Float64:
    """Return log p of every row of level 0, [batch, num_clusters]."""
    return row_log_probs(model, hidden, depth=1)


def target_log_prob(
    model: HierarchicalSoftmax, hidden: Array, row: Array, target: Array
) -> Float64:
    """Return log p of `target[i]` given `hidden[row[i]]` for every pair i, [pairs].

    It computes one path per pair. Targets from num_targets on are inner nodes.

    Raises:
        QueryError: a wrong width, or a row or target out of range.
    """
    num_numbers = model.num_targets + model.num_inner
    expect_pairs(hidden, row, target, hidden_size=model.hidden_size, num_targets=num_numbers)
    states = np.asarray(hidden, dtype=np.float64)
    return np.array(
        [
            _path_log_prob(model, states[r], *_path_end(model, int(t)))
            for r, t in zip(row, target, strict=True)
        ],
        dtype=np.float64,
    )


def top_k(model: HierarchicalSoftmax, hidden: Array, k: int) -> tuple[Float64, Int64]:
    """Return (log p, target) of the k most likely targets, [batch, k]; ties: lower target first."""
    return top_k_of(log_probs(model, hidden), k)


def largest_logit(model: HierarchicalSoftmax, hidden: Array) -> float:
    """Return an upper bound of |logit| over all rows and targets.

    Rounding errors of float32 graphs grow in proportion to it, and so do the tolerances.
    """
    return max(
        float(np.abs(level.weight @ np.asarray(hidden, dtype=np.float32).T).max())
        + float(np.abs(level.bias[np.isfinite(level.bias)]).max(initial=0.0))
        for level in model.levels
    )


def row_log_probs(model: HierarchicalSoftmax, hidden: Array, *, depth: int) -> Float64:
    """Return log p of every row of level depth - 1, [batch, rows]."""
    expect_hidden(hidden, model.hidden_size)
    states = np.asarray(hidden, dtype=np.float64)
    total = np.zeros((len(states), 1))
    for level in model.levels[:depth]:
        total = total[:, level.block_of_row] + _segment_log_softmax(
            _logits(level, states), level.offsets
        )
    return total


def _logits(level: Level, states: Float64) -> Float64:
    logits = np.empty((len(states), level.num_rows))
    for start in range(0, level.num_rows, _MAX_ROWS_PER_CHUNK):
        chunk = slice(start, start + _MAX_ROWS_PER_CHUNK)
        logits[:, chunk] = states @ level.weight[chunk].astype(np.float64).T + level.bias[chunk]
    return logits


def _segment_log_softmax(logits: Float64, offsets: Int64) -> Float64:
    sizes = np.diff(offsets)
    largest = np.maximum.reduceat(logits, offsets[:-1], axis=1)
    shifted = logits - np.repeat(largest, sizes, axis=1)
    log_sum: Float64 = np.log(np.add.reduceat(np.exp(shifted), offsets[:-1], axis=1))
    normalised: Float64 = shifted - np.repeat(log_sum, sizes, axis=1)
    return normalised


def _path_end(model: HierarchicalSoftmax, target: int) -> tuple[int, int]:
    """Return (a row of the last level, the number of levels on the path of the target)."""
    if target < model.num_targets:
        return int(model.rows[target]), len(model.levels)
    assert model.inner is not None, "an inner node was asked for"
    node = target - model.num_targets
    return int(model.inner.rows[node]), int(model.inner.levels[node]) + 1


def _path_log_prob(model: HierarchicalSoftmax, state: Float64, row: int, depth: int) -> float:
    """Return the sum of local log-softmaxes on the first `depth` levels of the path to a row."""
    total = 0.0
    for i, level in reversed(list(enumerate(model.levels))):
        block = int(level.block_of_row[row])
        if i >= depth:
            row = block
            continue
        rows = slice(level.offsets[block], level.offsets[block + 1])
        logits = level.weight[rows].astype(np.float64) @ state + level.bias[rows]
        largest = logits.max()
        log_sum = largest + np.log(np.exp(logits - largest).sum())
        total += float(logits[row - level.offsets[block]] - log_sum)
        row = block
    return total
