"""fastText's Huffman tree, which its files do not hold: rebuilt from counts by its exact rule.

Leaves are the targets in file order, which is by descending count. Two cursors move over leaves,
from the rarest up, and over inner nodes, in the order of their making; each new node takes the two
smaller ends. A leaf is taken only where its count is strictly smaller: ties go to the inner node.
The end taken first is the left child; P(right) = sigmoid. word2vec's C code grows the same tree.
Inner node n of 0 to N - 2 has row n of the output matrix; the last made is the root.
"""

import numpy as np

from hsoftmax.exporter.errors import SourceError
from hsoftmax.models.arrays import Array, Int64
from hsoftmax.models.binary_tree import Int8, Int32

_UNMADE = 10**15  # the count of a node that has none yet
_DEEPEST = 128  # counts of less than 10^15 in all make no deeper tree, unless many are 0
_MOST_STEPS = 1 << 26  # what a tree deeper than that may take in all


def huffman_paths(counts: Int64) -> tuple[Int32, Int8]:
    """(path, sign), both [targets, depth], of the tree over these counts.

    Raises:
        SourceError: counts that fastText cannot make a tree of.
    """
    if len(counts) == 0 or counts.min() < 0 or counts.max() >= _UNMADE:
        got = f"{counts.min()} to {counts.max()}" if len(counts) else "none"
        raise SourceError(f"counts: expected at least one of 0 to {_UNMADE - 1}, got {got}")
    parent, is_right = _grow(counts.tolist())
    depth = _depths(parent)
    deepest = int(depth[: len(counts)].max())
    if deepest > _DEEPEST and deepest * len(counts) > _MOST_STEPS:
        raise SourceError(f"counts: expected a tree of at most {_DEEPEST} steps, got {deepest}")
    return _climb(parent, is_right, depth[: len(counts)])


def _grow(counts: list[int]) -> tuple[Int64, Array]:
    """[2 N - 1] parent of each leaf and inner node (the root's is itself), and which side it is."""
    leaves = len(counts)
    count = counts + [_UNMADE] * (leaves - 1)
    parent, is_right = list(range(2 * leaves - 1)), [False] * (2 * leaves - 1)
    leaf, node = leaves - 1, leaves
    for made in range(leaves, 2 * leaves - 1):
        total = 0
        for side in (False, True):
            if leaf >= 0 and count[leaf] < count[node]:
                taken, leaf = leaf, leaf - 1
            else:
                taken, node = node, node + 1
            parent[taken], is_right[taken] = made, side
            total += count[taken]
        count[made] = total
    return np.array(parent), np.array(is_right)


def _depths(parent: Int64) -> Int64:
    """Steps from the root to each node: parents are made after their children."""
    depth = [0] * len(parent)
    above = parent.tolist()
    for node in range(len(parent) - 2, -1, -1):
        depth[node] = depth[above[node]] + 1
    return np.array(depth)


def _climb(parent: Int64, is_right: Array, depth: Int64) -> tuple[Int32, Int8]:
    leaves = len(depth)
    path = np.zeros((leaves, max(1, int(depth.max()))), dtype=np.int32)
    sign = np.zeros(path.shape, dtype=np.int8)
    target, at = np.arange(leaves), np.arange(leaves)
    left = depth.copy()
    while (left > 0).any():
        some = left > 0
        target, at, left = target[some], at[some], left[some] - 1
        path[target, left] = parent[at] - leaves
        sign[target, left] = np.where(is_right[at], 1, -1)
        at = parent[at]
    return path, sign
