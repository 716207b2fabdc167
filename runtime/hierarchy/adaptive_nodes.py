"""The nodes of an adaptive softmax: its tails, below a head that has the shortlist beside them.

A tail has the number of its cluster: the targets of the shortlist are the clusters before it.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from hsoftmax.models.arrays import Array, Float32, Float64

from .nodes import Children, ExpectRunning
from .stored_rows import log_softmax, logits


class AdaptiveHierarchy:
    """The head and the tails, by the first target of each tail and the number of targets."""

    def __init__(
        self, tensors: Mapping[str, Array], cutoffs: Sequence[int], num_targets: int
    ) -> None:
        self._tensors = tensors
        self._bounds = [*cutoffs, num_targets]

    @property
    def nodes(self) -> range:
        return range(self._bounds[0], self._bounds[0] + len(self._bounds) - 1)

    def has_node(self, node: int) -> bool:
        return node in self.nodes

    def path(self, node: int | None) -> tuple[int, ...]:
        return () if node is None else (node,)

    def parent(self, target: int) -> int | None:
        if target < self._bounds[0]:
            return None
        tail = int(np.searchsorted(self._bounds, target, side="right")) - 1
        return self.nodes[tail]

    def num_targets(self, node: int) -> int:
        first, stop = self._targets(node)
        return stop - first

    def children(self, node: int | None) -> Children:
        if node is not None:
            targets = np.arange(*self._targets(node))
            return Children(np.full(len(targets), -1), targets, np.ones(len(targets), np.int64))
        targets, tails = np.arange(self._bounds[0]), np.array(self.nodes)
        return Children(
            node=np.concatenate([np.full(len(targets), -1), tails]),
            target=np.concatenate([targets, np.full(len(tails), -1)]),
            num_targets=np.concatenate([np.ones(len(targets), np.int64), np.diff(self._bounds)]),
        )

    def rows(self, node: int | None) -> int:
        return self.nodes.stop + (0 if node is None else self.num_targets(node))

    def log_probs(
        self, hidden: Float32, node: int | None, expect_running: ExpectRunning
    ) -> tuple[Array, Array]:
        whole = np.zeros((len(hidden), 1))
        head = self._layer("head", hidden, expect_running)
        if node is None:
            return whole, head
        above = head[:, [node]]
        tail = self._layer(f"tail{node - self._bounds[0]}", hidden, expect_running)
        return np.concatenate([whole, above], axis=1), above + tail

    def _targets(self, node: int) -> tuple[int, int]:
        tail = node - self._bounds[0]
        return self._bounds[tail], self._bounds[tail + 1]

    def _layer(self, name: str, hidden: Float32, expect_running: ExpectRunning) -> Float64:
        """Return the log-softmax of the head or of a tail, [batch, rows]."""
        projection = self._tensors.get(f"{name}.projection")
        states = hidden if projection is None else hidden @ projection.T
        rows = slice(0, len(self._tensors[f"{name}.weight"]))
        products = logits(self._tensors, f"{name}.weight", rows, states, expect_running)
        return log_softmax(products + self._tensors.get(f"{name}.bias", 0.0))
