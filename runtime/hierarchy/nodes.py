"""Defines what a hierarchy answers, for every family.

A *node* is a place with several targets below it: the whole tree, a cluster, a row above the last
level, an inner node of a binary tree, a tail. It has a number, and the whole tree is None. A place
with one target below it is that target.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from hsoftmax.models.arrays import Array, Float32, Int64

ExpectRunning = Callable[[], None]  # raises an error if the run is to stop


@dataclass(frozen=True)
class Children:
    """The children of one node, in the order of the hierarchy.

    Attributes:
        node: [children] the number of the place of each; -1 for a target without a place
        target: [children] the target of each, or -1 for a node
        num_targets: [children] the number of targets below each, 1 for a target
    """

    node: Int64
    target: Int64
    num_targets: Int64

    def __len__(self) -> int:
        return len(self.target)


class Hierarchy(Protocol):
    """The nodes of one bundle. Several threads may call it."""

    @property
    def nodes(self) -> range:
        """The numbers that a node may have."""

    def has_node(self, node: int) -> bool:
        """Return True if there is a node of this number, which is one of `nodes`."""

    def path(self, node: int | None) -> tuple[int, ...]:
        """Return the nodes on the way to a node, itself the last; empty for the whole tree."""

    def parent(self, target: int) -> int | None:
        """Return the node whose child a target is."""

    def num_targets(self, node: int) -> int:
        """Return the number of targets below a node."""

    def children(self, node: int | None) -> Children:
        """Return the children of a node. A place without targets is no child."""

    def rows(self, node: int | None) -> int:
        """Return the number of weight rows that `log_probs` multiplies."""

    def log_probs(
        self, hidden: Float32, node: int | None, expect_running: ExpectRunning
    ) -> tuple[Array, Array]:
        """Return log p of each node of the path [batch, path] and each child [batch, children]."""
