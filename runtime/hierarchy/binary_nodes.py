"""The nodes of a binary tree: the rows of `syn1`, each with the children of its two branches."""

from collections.abc import Mapping
from functools import cached_property

import numpy as np

from hsoftmax.models.arrays import Array, Float32, Int64
from hsoftmax.models.huffman_softmax import FASTTEXT_EPSILON
from hsoftmax.models.tree_paths import NO_CHILD, Int32, build_children, encode_leaf

from .nodes import Children, ExpectRunning
from .stored_rows import logits


class BinaryHierarchy:
    """The inner nodes of the tree. The root is the whole tree.

    With `compat` fasttext, log-probabilities are that library's scores, and the two children of a
    node have a little more than its probability together.
    """

    def __init__(self, tensors: Mapping[str, Array], compat: str) -> None:
        self._tensors = tensors
        self._is_exact = compat != "fasttext"
        self._path, self._sign = np.asarray(tensors["path"]), np.asarray(tensors["sign"])
        self._root = int(self._path[0, 0])

    @property
    def nodes(self) -> range:
        return range(len(self._tensors["syn1"]))

    def has_node(self, node: int) -> bool:
        return node in self.nodes and int(self._children[node, 0]) != NO_CHILD

    def path(self, node: int | None) -> tuple[int, ...]:
        path: list[int] = []
        while node is not None and node != self._root:
            path.insert(0, node)
            node = int(self._parents[node])
        return tuple(path)

    def parent(self, target: int) -> int | None:
        steps = int(np.count_nonzero(self._sign[target]))
        return int(self._path[target, steps - 1]) if steps > 1 else None

    def num_targets(self, node: int) -> int:
        return int(self._counts[node])

    def children(self, node: int | None) -> Children:
        if not self._has_steps:
            return Children(np.array([-1]), np.array([0]), np.array([1]))
        child = self._children[self._root if node is None else node].astype(np.int64)
        is_target = child < 0
        return Children(
            node=np.where(is_target, -1, child),
            target=np.where(is_target, encode_leaf(child), -1),
            num_targets=np.where(is_target, 1, self._counts[np.maximum(child, 0)]),
        )

    def rows(self, node: int | None) -> int:
        return len(self.path(node)) + 1

    def log_probs(
        self, hidden: Float32, node: int | None, expect_running: ExpectRunning
    ) -> tuple[Array, Array]:
        total = np.zeros(len(hidden))
        path, above = [total], self._root
        for below in self.path(node):
            minus, plus = self._branches(hidden, above, expect_running)
            total = total + (minus if self._children[above, 0] == below else plus)
            path.append(total)
            above = below
        if not self._has_steps:
            return total[:, None], total[:, None]
        branches = self._branches(hidden, above, expect_running)
        return np.stack(path, axis=1), total[:, None] + np.stack(branches, axis=1)

    def _branches(
        self, hidden: Float32, node: int, expect_running: ExpectRunning
    ) -> tuple[Array, Array]:
        """Return the log-probabilities of the branches of sign -1 and +1, [batch] each."""
        rows = slice(node, node + 1)
        logit = logits(self._tensors, "syn1", rows, hidden, expect_running)[:, 0]
        if "bias" in self._tensors:
            logit = logit + self._tensors["bias"][node]
        return self._log_step(-logit), self._log_step(logit)

    def _log_step(self, logit: Array) -> Array:
        log_sigmoid: Array = -np.logaddexp(0.0, -logit)
        return log_sigmoid if self._is_exact else np.log(np.exp(log_sigmoid) + FASTTEXT_EPSILON)

    @cached_property
    def _has_steps(self) -> bool:
        """False for a tree of one target, which is the root."""
        return bool(self._sign[0, 0])

    @cached_property
    def _children(self) -> Int32:
        return build_children(self._path, self._sign, num_nodes=len(self.nodes))

    @cached_property
    def _parents(self) -> Int64:
        """[nodes]: the node above each; that of the root and of unused nodes is never read."""
        parents = np.full(len(self.nodes), -1)
        for branch in (0, 1):
            child = self._children[:, branch]
            above = np.flatnonzero(child >= 0)
            parents[child[above]] = above
        return parents

    @cached_property
    def _counts(self) -> Int64:
        """[nodes]: the number of targets below each."""
        counts = np.zeros(len(self.nodes), dtype=np.int64)
        for step in range(self._path.shape[1]):
            on_path = self._sign[:, step] != 0
            counts += np.bincount(self._path[on_path, step], minlength=len(counts))
        return counts

    def prepare(self) -> None:
        """Read the paths of all targets once, which takes a second for millions of targets."""
        _ = self._children, self._parents, self._counts
