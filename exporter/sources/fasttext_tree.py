"""Rebuilds fastText's Huffman tree, which its files do not hold, from counts by its exact rule.

The leaves are the targets in file order, which is by descending count. Two cursors move, one over
leaves from the rarest up, one over inner nodes in order of creation; each new node takes the two
smaller ends. A leaf is taken only if its count is strictly smaller: ties go to the inner node. The
end taken first is the left child; P(right) = sigmoid. word2vec's C code builds the same tree. Inner
node n of 0 to N - 2 has row n of the output matrix; the last created node is the root.
"""

import numpy as np

from hsoftmax.exporter.errors import SourceError
from hsoftmax.models.arrays import Array, Int64
from hsoftmax.models.tree_paths import Int8, Int32

_UNSET_COUNT = 10**15  # the count of a node that is not built yet
_ALWAYS_ALLOWED_STEPS = 1 << 22  # of all paths with their padding; each takes some 60 bytes
_MAX_STEPS_PER_BYTE = 4  # of the file


def huffman_paths(counts: Int64, file_bytes: int) -> tuple[Int32, Int8]:
    """Return (path, sign), both [targets, depth], of the tree over the counts of a file.

    Raises:
        SourceError: counts from which fastText cannot build a tree, or a tree that is too deep
            for the length of the file: one over many zero counts.
    """
    if len(counts) == 0 or counts.min() < 0 or counts.max() >= _UNSET_COUNT:
        actual = f"{counts.min()} to {counts.max()}" if len(counts) else "none"
        raise SourceError(f"counts: expected at least one of 0 to {_UNSET_COUNT - 1}, got {actual}")
    parent, is_right = _build_tree(counts.tolist())
    depth = _depths(parent)
    deepest = int(depth[: len(counts)].max())
    max_depth = (_ALWAYS_ALLOWED_STEPS + _MAX_STEPS_PER_BYTE * file_bytes) // len(counts)
    if deepest > max_depth:
        raise SourceError(f"counts: expected a tree of at most {max_depth} steps, got {deepest}")
    return _paths_from_parents(parent, is_right, depth[: len(counts)])


def _build_tree(counts: list[int]) -> tuple[Int64, Array]:
    """Return [2 N - 1]: the parent of each node, and True for a right child.

    The root is its own parent.
    """
    leaves = len(counts)
    count = counts + [_UNSET_COUNT] * (leaves - 1)
    parent, is_right = list(range(2 * leaves - 1)), [False] * (2 * leaves - 1)
    leaf, node = leaves - 1, leaves
    for new_node in range(leaves, 2 * leaves - 1):
        total = 0
        for side in (False, True):
            if leaf >= 0 and count[leaf] < count[node]:
                child, leaf = leaf, leaf - 1
            else:
                child, node = node, node + 1
            parent[child], is_right[child] = new_node, side
            total += count[child]
        count[new_node] = total
    return np.array(parent), np.array(is_right)


def _depths(parent: Int64) -> Int64:
    """Return the depth of each node; parents have higher numbers than their children."""
    depth = [0] * len(parent)
    parents = parent.tolist()
    for node in range(len(parent) - 2, -1, -1):
        depth[node] = depth[parents[node]] + 1
    return np.array(depth)


def _paths_from_parents(parent: Int64, is_right: Array, depth: Int64) -> tuple[Int32, Int8]:
    """Return (path, sign) of each leaf, filled from the leaf up to the root."""
    leaves = len(depth)
    path = np.zeros((leaves, max(1, int(depth.max()))), dtype=np.int32)
    sign = np.zeros(path.shape, dtype=np.int8)
    target, node = np.arange(leaves), np.arange(leaves)
    remaining = depth.copy()
    while (remaining > 0).any():
        active = remaining > 0
        target, node, remaining = target[active], node[active], remaining[active] - 1
        path[target, remaining] = parent[node] - leaves
        sign[target, remaining] = np.where(is_right[node], 1, -1)
        node = parent[node]
    return path, sign
