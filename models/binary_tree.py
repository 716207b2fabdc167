"""A binary tree with one leaf for each target, given as the path from the root to each leaf.

A step is a node and a sign: which of the node's two branches the path takes. `children` turns the
paths round, into the two children of each node; `expect_tree` refuses paths that are no tree, for
only over a tree do the probabilities sum to one whatever the weights are.
"""

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from .arrays import Array, expect_ndim, expect_shape, integers
from .errors import WeightsError

Int8 = NDArray[np.int8]
Int32 = NDArray[np.int32]
Bool = NDArray[np.bool_]

Target = TypeVar("Target", int, Array)

NO_CHILD = np.iinfo(np.int32).min  # both children of a node that no path goes through


def leaf(target: Target) -> Target:
    """How a table of children names the leaf of a target; an inner node is its own number.

    It is its own inverse.
    """
    return -1 - target


def build_paths(path: Array, sign: Array, *, num_nodes: int) -> tuple[Int32, Int8]:
    """Checked [targets, depth] arrays: padding is node 0 and sign 0; depth is that of the deepest
    leaf, and at least 1.

    Raises:
        WeightsError: shapes, types or values that are no paths, or paths that are no tree.
    """
    expect_ndim("path", path, "targets", "depth")
    expect_shape("sign", sign, path.shape)
    path, sign = integers("path", path), integers("sign", sign)
    if not len(path):
        raise WeightsError("path: expected at least one target, got none")
    _expect_values(path, sign, num_nodes)
    depth = max(1, int(np.count_nonzero(sign, axis=1).max(initial=0)))
    width = [(0, 0), (0, max(0, depth - path.shape[1]))]
    taken = np.pad(sign, width)[:, :depth].astype(np.int8)
    nodes = np.where(taken != 0, np.pad(path, width)[:, :depth], 0).astype(np.int32)
    _expect_tree(nodes, taken, num_nodes)
    return nodes, taken


def children(path: Int32, sign: Int8, *, num_nodes: int) -> Int32:
    """[nodes, 2]: where each node's branch of sign -1 and of sign +1 leads."""
    table = np.full(2 * num_nodes, NO_CHILD, dtype=np.int32)
    for _, branch, child in _edges(path, sign):
        table[branch] = child
    return table.reshape(num_nodes, 2)


def _edges(path: Int32, sign: Int8) -> Iterator[tuple[Array, Array, Array]]:
    """For each depth: the targets that take a step there, its branch (2 node + 0 or 1), its end."""
    for d in range(path.shape[1]):
        taking = np.flatnonzero(sign[:, d])
        child: Array = leaf(taking)
        if d + 1 < path.shape[1]:
            goes_on = sign[taking, d + 1] != 0
            child = np.where(goes_on, path[taking, d + 1], child)
        yield taking, 2 * path[taking, d].astype(np.int64) + (sign[taking, d] > 0), child


def _expect_values(path: Array, sign: Array, num_nodes: int) -> None:
    _expect_none("sign: expected -1, 0 or 1", sign, np.abs(sign) > 1)
    gap = np.zeros(sign.shape, dtype=np.bool_)
    gap[:, 1:] = (sign[:, 1:] != 0) & (sign[:, :-1] == 0)
    _expect_none("sign: expected padding only after the last step", sign, gap)
    outside = (sign != 0) & ((path < 0) | (path >= num_nodes))
    _expect_none(f"path: expected nodes 0 to {num_nodes - 1}", path, outside)
    _expect_none("path: expected padding of 0 or -1", path, (sign == 0) & ~np.isin(path, [0, -1]))


def _expect_none(wanted: str, array: Array, wrong: Bool) -> None:
    if wrong.any():
        target, step = (int(i) for i in np.argwhere(wrong)[0])
        raise WeightsError(f"{wanted}, got {array[target, step]} at step {step} of target {target}")


def _expect_tree(path: Int32, sign: Int8, num_nodes: int) -> None:
    """One root, one child a branch, one parent a node, and no branch that leads nowhere."""
    at_root = np.flatnonzero(sign[:, 0] == 0)
    if len(path) == 1 and len(at_root) == 1:
        return
    if len(at_root):
        raise _no_tree(f"target {at_root[0]} has no step: its leaf would be the root")
    if (path[:, 0] != path[0, 0]).any():
        other = int(np.argmax(path[:, 0] != path[0, 0]))
        raise _no_tree(f"target 0 starts at node {path[0, 0]}, target {other} at {path[other, 0]}")
    table = children(path, sign, num_nodes=num_nodes)
    _expect_one_child(path, sign, table)
    _expect_one_parent(table, int(path[0, 0]))


def _expect_one_child(path: Int32, sign: Int8, table: Int32) -> None:
    for taking, branch, child in _edges(path, sign):
        differs = table.ravel()[branch] != child
        if differs.any():
            first = int(np.argmax(differs))
            node, side = divmod(int(branch[first]), 2)
            raise _no_tree(
                f"branch {2 * side - 1:+d} of node {node} leads to {_named(child[first])} on the "
                f"path of target {taking[first]}, and elsewhere to "
                f"{_named(table.ravel()[branch[first]])}"
            )


def _expect_one_parent(table: Int32, root: int) -> None:
    used = (table != NO_CHILD).any(axis=1)
    lone = used & (table == NO_CHILD).any(axis=1)
    if lone.any():
        node = int(np.argmax(lone))
        side = int(np.argmax(table[node] == NO_CHILD))
        raise _no_tree(f"branch {2 * side - 1:+d} of node {node} leads to no target")
    parents = np.bincount(table[table >= 0], minlength=len(table))
    if parents[root]:
        raise _no_tree(f"node {root} is the root and a child")
    if parents.max() > 1:
        raise _no_tree(f"node {int(parents.argmax())} is the child of {parents.max()} branches")


def _named(child: int) -> str:
    return f"node {child}" if child >= 0 else f"target {leaf(int(child))}"


def _no_tree(why: str) -> WeightsError:
    return WeightsError(f"path, sign: expected one binary tree with a leaf for each target: {why}")
