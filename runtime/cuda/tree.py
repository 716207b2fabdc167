"""The tasks of a HuffmanSoftmax on the device, but top_k: native kernels find it on the CPU.

A best-first search of a tree decides at every node. The device would compute the full distribution
for it, which costs more than a search of a peaked row.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hsoftmax.models import HuffmanSoftmax
from hsoftmax.models.arrays import Array, Float32, Int64

from .steps import DeviceArray, Feeds, Steps

_STEPS_PER_RUN = 8  # of a walk: the graph has them one after another
_FLOAT_BYTES = 4


@dataclass(frozen=True)
class DeviceTree:
    """A tree on the device.

    Attributes:
        weights: syn1, and bias if the model has one
        children: [2 * nodes] the child on each edge, or -1 - target
        above: for each round of doubling, the edge so far above each edge, [edges + 1]
        leaf: [N] the edge to each target
    """

    model: HuffmanSoftmax
    steps: Steps
    weights: Mapping[str, DeviceArray]
    children: DeviceArray
    above: tuple[DeviceArray, ...]
    leaf: DeviceArray

    def target_log_prob(self, feeds: Mapping[str, Array]) -> list[Array]:
        """hidden [B, H], row [P], target [P] -> log_prob [P]."""
        hidden, row, target = (feeds[name] for name in ("hidden", "row", "target"))
        result = np.empty(len(row), np.float32)
        order = np.argsort(-self.model.lengths[target], kind="stable")
        start = 0
        while start < len(order):
            depth = max(1, int(self.model.lengths[target[order[start]]]))
            step_bytes = 4 * _FLOAT_BYTES * depth * (self.model.hidden_size + 1)
            pairs = order[start : start + max(1, self.steps.max_bytes // step_bytes)]
            chosen = target[pairs]
            inputs: Feeds = {
                "row": row[pairs],
                "path": self.model.path[chosen, :depth].astype(np.int64),
                "sign": self.model.sign[chosen, :depth].astype(np.float32),
            }
            (result[pairs],) = self._run("target_log_prob", inputs, hidden)
            start += len(pairs)
        return [result]

    def log_probs(self, feeds: Mapping[str, Array]) -> list[Array]:
        """hidden [B, H] -> log_probs [B, N]."""
        hidden = feeds["hidden"]
        result = np.empty((len(hidden), self.model.num_targets), np.float32)
        row_bytes = 8 * _FLOAT_BYTES * (2 * self.model.num_nodes + 1)
        step = max(1, self.steps.max_bytes // row_bytes)
        tables: Feeds = {f"above{r}": table for r, table in enumerate(self.above)} | {
            "leaf": self.leaf
        }
        for start in range(0, len(hidden), step):
            rows = slice(start, start + step)
            (result[rows],) = self._run("log_probs", tables, hidden[rows])
        return [result]

    def sample(self, feeds: Mapping[str, Array]) -> list[Array]:
        """hidden [B, H], noise [B, S, depth] in [0, 1) -> target, log_prob [B, S]."""
        hidden, noise = feeds["hidden"], feeds["noise"]
        shape = noise.shape[:2]
        row = np.repeat(np.arange(len(hidden)), shape[1])
        noise = _whole_runs(noise.reshape(len(row), noise.shape[2]))
        position = np.full(len(row), int(self.model.path[0, 0]))
        total = np.zeros(len(row), np.float32)
        pair_bytes = 4 * _FLOAT_BYTES * _STEPS_PER_RUN * self.model.hidden_size
        step = max(1, self.steps.max_bytes // pair_bytes)
        for first in range(0, noise.shape[1], _STEPS_PER_RUN):
            walking = np.flatnonzero(position >= 0)
            for start in range(0, len(walking), step):
                pairs = walking[start : start + step]
                inputs: Feeds = {
                    "row": row[pairs],
                    "children": self.children,
                    "start": position[pairs],
                    "start_log_prob": total[pairs],
                    "noise": noise[pairs, first : first + _STEPS_PER_RUN],
                }
                position[pairs], total[pairs] = self._run("sample", inputs, hidden)
        return [(-1 - position).reshape(shape), total.reshape(shape)]

    def _run(self, graph: str, feeds: Feeds, hidden: Array) -> list[Array]:
        return self.steps.run(graph, {**self.weights, "hidden": hidden, **feeds})


def _whole_runs(noise: Float32) -> Float32:
    """Add columns up to a whole number of runs: a walk has ended before it reads them."""
    missing = -noise.shape[1] % _STEPS_PER_RUN
    return np.pad(noise, ((0, 0), (0, missing)))


def put_tree(model: HuffmanSoftmax, steps: Steps) -> DeviceTree:
    """Copy a tree of at least two targets to the device."""
    weights = {"syn1": steps.put(model.syn1)}
    if model.bias is not None:
        weights["bias"] = steps.put(model.bias)
    above, leaf = _edges(model)
    return DeviceTree(
        model,
        steps,
        weights,
        steps.put(model.children.reshape(-1).astype(np.int64)),
        tuple(steps.put(table) for table in above),
        steps.put(leaf),
    )


def _edges(model: HuffmanSoftmax) -> tuple[list[Int64], Int64]:
    """Return the edge 1, 2, 4, ... above each edge, and the edge to each target.

    Edge 2 * node + branch leads to a child; the last edge is above the root and above itself.
    """
    child = model.children.reshape(-1).astype(np.int64)
    edges = np.arange(len(child))
    top = len(child)
    edge_to_node = np.full(model.num_nodes, top)
    is_node = child >= 0
    edge_to_node[child[is_node]] = edges[is_node]
    leaf = np.empty(model.num_targets, np.int64)
    is_leaf = (child < 0) & (child >= -model.num_targets)
    leaf[-1 - child[is_leaf]] = edges[is_leaf]
    above = np.append(edge_to_node[edges // 2], top)
    tables = []
    for _ in range((model.depth - 1).bit_length()):
        tables.append(above)
        above = above[above]
    return tables, leaf
