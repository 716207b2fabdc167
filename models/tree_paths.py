"""A binary tree with one leaf per target, stored as the path from the root to each leaf.

One step of a path is a node and a sign: the sign selects one of the node's two branches.
`build_children` derives the two children of each node from the paths. `build_paths` refuses paths
that do not form a tree, because the probabilities sum to one only over a tree.
"""

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from .arrays import Array, BoolArray, expect_ndim, expect_shape, to_int64
from .errors import WeightsError

Int8 = NDArray[np.int8]
Int32 = NDArray[np.int32]

Target = TypeVar("Target", int, Array)

NO_CHILD = np.iinfo(np.int32).min  # both children of a node that is on no path


def encode_leaf(target: Target) -> Target:
    """Encode a target as the number that stands for its leaf in a table of children.

    An inner node is encoded as its own number. The function is its own inverse.
    """
    return -1 - target


def build_paths(path: Array, sign: Array, *, num_nodes: int) -> tuple[Int32, Int8]:
    """Return checked arrays (path, sign), both [targets, depth].

    Padding is node 0 and sign 0. The depth is that of the deepest leaf, and at least 1.

    Raises:
        WeightsError: shapes, types or values that are not paths, or paths that do not form a tree.
    """
    expect_ndim("path", path, "targets", "depth")
    expect_shape("sign", sign, path.shape)
    path, sign = to_int64("path", path), to_int64("sign", sign)
    if not len(path):
        raise WeightsError("path: expected at least one target, got none")
    _expect_values(path, sign, num_nodes)
    depth = max(1, int(np.count_nonzero(sign, axis=1).max(initial=0)))
    width = [(0, 0), (0, max(0, depth - path.shape[1]))]
    signs = np.pad(sign, width)[:, :depth].astype(np.int8)
    nodes = np.where(signs != 0, np.pad(path, width)[:, :depth], 0).astype(np.int32)
    _expect_tree(nodes, signs, num_nodes)
    return nodes, signs


def build_children(path: Int32, sign: Int8, *, num_nodes: int) -> Int32:
    """Return [nodes, 2]: the child of each node on its branch of sign -1 and of sign +1."""
    child_table = np.full(2 * num_nodes, NO_CHILD, dtype=np.int32)
    for _, branch, child in _branches_by_depth(path, sign):
        child_table[branch] = child
    return child_table.reshape(num_nodes, 2)


def _branches_by_depth(path: Int32, sign: Int8) -> Iterator[tuple[Array, Array, Array]]:
    """Yield, for each depth, the targets with a step there, the branch and the child of each.

    Branch number 2 * node is the -1 branch of the node, 2 * node + 1 its +1 branch.
    """
    for d in range(path.shape[1]):
        targets = np.flatnonzero(sign[:, d])
        child: Array = encode_leaf(targets)
        if d + 1 < path.shape[1]:
            has_next_step = sign[targets, d + 1] != 0
            child = np.where(has_next_step, path[targets, d + 1], child)
        yield targets, 2 * path[targets, d].astype(np.int64) + (sign[targets, d] > 0), child


def _expect_values(path: Array, sign: Array, num_nodes: int) -> None:
    _refuse_where("sign: expected -1, 0 or 1", sign, np.abs(sign) > 1)
    after_padding = np.zeros(sign.shape, dtype=np.bool_)
    after_padding[:, 1:] = (sign[:, 1:] != 0) & (sign[:, :-1] == 0)
    _refuse_where("sign: expected padding only after the last step", sign, after_padding)
    out_of_range = (sign != 0) & ((path < 0) | (path >= num_nodes))
    _refuse_where(f"path: expected nodes 0 to {num_nodes - 1}", path, out_of_range)
    _refuse_where("path: expected padding of 0 or -1", path, (sign == 0) & ~np.isin(path, [0, -1]))


def _refuse_where(expectation: str, array: Array, wrong: BoolArray) -> None:
    if wrong.any():
        target, step = (int(i) for i in np.argwhere(wrong)[0])
        raise WeightsError(
            f"{expectation}, got {array[target, step]} at step {step} of target {target}"
        )


def _expect_tree(path: Int32, sign: Int8, num_nodes: int) -> None:
    """Raise WeightsError unless one root exists and each used node has two children, one parent."""
    without_steps = np.flatnonzero(sign[:, 0] == 0)
    if len(path) == 1 and len(without_steps) == 1:
        return
    if len(without_steps):
        raise _tree_error(f"target {without_steps[0]} has no step: its leaf would be the root")
    if (path[:, 0] != path[0, 0]).any():
        differing = int(np.argmax(path[:, 0] != path[0, 0]))
        raise _tree_error(
            f"target 0 starts at node {path[0, 0]}, target {differing} at {path[differing, 0]}"
        )
    child_table = build_children(path, sign, num_nodes=num_nodes)
    _expect_one_child(path, sign, child_table)
    _expect_one_parent(child_table, int(path[0, 0]))


def _expect_one_child(path: Int32, sign: Int8, child_table: Int32) -> None:
    for targets, branch, child in _branches_by_depth(path, sign):
        differs = child_table.ravel()[branch] != child
        if differs.any():
            first = int(np.argmax(differs))
            node, side = divmod(int(branch[first]), 2)
            raise _tree_error(
                f"branch {2 * side - 1:+d} of node {node} leads to {_child_name(child[first])} "
                f"on the path of target {targets[first]}, and elsewhere to "
                f"{_child_name(child_table.ravel()[branch[first]])}"
            )


def _expect_one_parent(child_table: Int32, root: int) -> None:
    used = (child_table != NO_CHILD).any(axis=1)
    incomplete = used & (child_table == NO_CHILD).any(axis=1)
    if incomplete.any():
        node = int(np.argmax(incomplete))
        side = int(np.argmax(child_table[node] == NO_CHILD))
        raise _tree_error(f"branch {2 * side - 1:+d} of node {node} leads to no target")
    parents = np.bincount(child_table[child_table >= 0], minlength=len(child_table))
    if parents[root]:
        raise _tree_error(f"node {root} is the root and a child")
    if parents.max() > 1:
        raise _tree_error(f"node {int(parents.argmax())} is the child of {parents.max()} branches")


def _child_name(child: int) -> str:
    return f"node {child}" if child >= 0 else f"target {encode_leaf(int(child))}"


def _tree_error(reason: str) -> WeightsError:
    return WeightsError(
        f"path, sign: expected one binary tree with a leaf for each target: {reason}"
    )
