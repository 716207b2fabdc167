"""Converts a tree of classes, with leaves at any depth, into a HierarchicalSoftmax.

The children of each node are a block with a softmax of its own, and so are the roots:

    log p(node | hidden) = log p(parent | hidden) + log_softmax(siblings)(node)

The targets are the leaves, and inner nodes may be asked for besides. In a HierarchicalSoftmax all
targets lie on the last level, and a row of a level has one block in the next. Two facts make every
tree fit, exactly:

* A block of one row gives that row the probability 1, whatever its logit. So a row that must reach
  a deeper level is continued by blocks of one row, of weight 0: log p plus 0.
* For the same reason an only child is left out, and its parent has the child's block.

Each block stands as deep as its leaves allow, which needs the fewest rows that only continue.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .arrays import Array, Float32, Int64, expect_ndim, expect_shape, to_float32, to_int64
from .errors import WeightsError
from .hierarchical_softmax import HierarchicalSoftmax, InnerNodes, build, build_level

NO_PARENT = -1
_CONTINUED = -1  # in place of the node of a row that continues another
_MAX_DEPTH = 1000  # of the tree; each takes a step of Python
_MAX_LEVELS = 64  # with two rows or more in a block; every graph has a part for each
_MAX_NODES_SHOWN = 5


@dataclass(frozen=True)
class Taxonomy:
    """A checked tree: the parent of each node, and the nodes of each depth.

    Attributes:
        parent: [nodes]; NO_PARENT for a root
        by_depth: the roots, their children, and so on; every node once
    """

    parent: Int64
    by_depth: tuple[Int64, ...]

    @property
    def num_nodes(self) -> int:
        return len(self.parent)

    @cached_property
    def num_children(self) -> Int64:
        return np.bincount(self.parent[self.parent >= 0], minlength=self.num_nodes)

    @cached_property
    def leaves(self) -> Int64:
        """[targets]: the node of each target."""
        return np.flatnonzero(self.num_children == 0)

    @cached_property
    def inner(self) -> Int64:
        """The nodes that are no leaves, each after its parent."""
        return np.concatenate([nodes[self.num_children[nodes] > 0] for nodes in self.by_depth])

    @cached_property
    def first_child(self) -> Int64:
        """[nodes]: the place of each node's first child in `children`."""
        return np.cumsum(self.num_children) - self.num_children

    @cached_property
    def children(self) -> Int64:
        """The children of node 0, of node 1, and so on, each in the order of nodes."""
        by_parent = np.argsort(self.parent, kind="stable")
        return by_parent[np.count_nonzero(self.parent == NO_PARENT) :]


@dataclass(frozen=True)
class TreeLevel:
    """The rows of one level before their weights: the node of each, or _CONTINUED."""

    nodes: Int64
    offsets: Int64


@dataclass(frozen=True)
class TreeLevels:
    """All levels of a taxonomy, and the row of the last one for each target."""

    levels: tuple[TreeLevel, ...]
    target_rows: Int64

    def first_rows(self, level: int) -> Int64:
        """[rows of the level]: the first row of the last level below each row."""
        rows = np.arange(len(self.levels[level].nodes))
        for below in self.levels[level + 1 :]:
            rows = below.offsets[rows]
        return rows

    @property
    def num_rows(self) -> int:
        return sum(len(level.nodes) for level in self.levels)


def build_taxonomy(parent: Array) -> Taxonomy:
    """Check that parents form one or several trees.

    Raises:
        WeightsError: a parent that is no node, a cycle, or a tree that is too deep.
    """
    expect_ndim("parent", parent, "nodes")
    parent = to_int64("parent", parent)
    if not len(parent):
        raise WeightsError("parent: expected at least one node, got none")
    wrong = (parent < NO_PARENT) | (parent >= len(parent))
    if wrong.any():
        node = int(np.argmax(wrong))
        raise WeightsError(
            f"parent: expected 0 to {len(parent) - 1}, or -1 for a root, got {parent[node]} "
            f"for node {node}"
        )
    tree = Taxonomy(parent, _nodes_by_depth(Taxonomy(parent, ())))
    _expect_all_reached(tree)
    return tree


def lay_out(tree: Taxonomy) -> TreeLevels:
    """Return the rows of each level. Raises WeightsError for a tree of too many levels."""
    lead, height = _leads_and_heights(tree)
    roots = tree.by_depth[0]
    if len(roots) == 1 and tree.num_children[lead[roots[0]]]:
        roots = _children_of(tree, lead[roots[0]])
    num_levels = int(height[roots].max()) + 2
    if num_levels > _MAX_LEVELS:
        raise WeightsError(
            f"parent: expected at most {_MAX_LEVELS} levels of nodes with siblings, "
            f"got {num_levels}"
        )
    levels, leads = [TreeLevel(roots, np.array([0, len(roots)]))], lead[roots]
    for levels_below in range(num_levels - 1, 0, -1):
        is_expanded = height[leads] == levels_below - 1
        level, leads = _next_level(tree, lead, leads, is_expanded)
        levels.append(level)
    target_rows = np.empty(len(leads), dtype=np.int64)
    target_rows[np.searchsorted(tree.leaves, leads)] = np.arange(len(leads))
    return TreeLevels(tuple(levels), target_rows)


def inner_nodes(tree: Taxonomy, layout: TreeLevels, nodes: Int64) -> InnerNodes:
    """Return where the paths of these inner nodes end.

    A node that stands on no level, as an only child, ends where its parent does.
    """
    level_of = np.full(tree.num_nodes, -1)
    row_of = np.zeros(tree.num_nodes, dtype=np.int64)
    is_placed = np.zeros(tree.num_nodes, dtype=np.bool_)
    for i, level in enumerate(layout.levels):
        is_node = level.nodes != _CONTINUED
        placed = level.nodes[is_node]
        level_of[placed], row_of[placed] = i, layout.first_rows(i)[is_node]
        is_placed[placed] = True
    for some in tree.by_depth[1:]:  # parents before their children
        others = some[~is_placed[some]]
        level_of[others] = level_of[tree.parent[others]]
        row_of[others] = row_of[tree.parent[others]]
    return InnerNodes(row_of[nodes], level_of[nodes])


def from_taxonomy(weight: Array, bias: Array, layout: TreeLevels) -> HierarchicalSoftmax:
    """Build the model from weight [nodes, H] and bias [nodes].

    Raises:
        WeightsError: shapes that do not fit, values that are not finite.
    """
    weight, bias = to_float32("weight", weight), to_float32("bias", bias)
    rows = layout.target_rows
    return build(
        tuple(
            build_level(
                f"level {i}",
                _rows_of(weight, level.nodes),
                _rows_of(bias, level.nodes),
                level.offsets,
            )
            for i, level in enumerate(layout.levels)
        ),
        num_targets=len(rows),
        target_rows=rows if (np.diff(rows) != 1).any() else None,
    )


def expect_nodes(weight: Array, bias: Array, parent: Array) -> None:
    """Raise WeightsError unless the arrays have one row or number for each node."""
    expect_ndim("weight", weight, "nodes", "H")
    nodes = parent.shape
    if nodes == bias.shape == weight.shape[1:] and nodes != weight.shape[:1]:
        raise WeightsError(
            f"weight: expected [nodes, H], {nodes[0]} nodes as in parent, got "
            f"{list(weight.shape)}: transpose it"
        )
    expect_shape("bias", bias, weight.shape[:1])
    expect_shape("parent", parent, weight.shape[:1])


# --- checks ---------------------------------------------------------------------------------------


def _nodes_by_depth(tree: Taxonomy) -> tuple[Int64, ...]:
    """Return the nodes of each depth; nodes of a cycle are in none."""
    nodes = np.flatnonzero(tree.parent == NO_PARENT)
    by_depth: list[Int64] = []
    while len(nodes):
        if len(by_depth) == _MAX_DEPTH:
            raise WeightsError(f"parent: expected at most {_MAX_DEPTH} levels, got more")
        by_depth.append(nodes)
        nodes = _children_of(tree, nodes)
    return tuple(by_depth)


def _children_of(tree: Taxonomy, nodes: Array) -> Int64:
    counts = tree.num_children[np.atleast_1d(nodes)]
    first = tree.first_child[np.atleast_1d(nodes)]
    children: Int64 = tree.children[np.repeat(first, counts) + _places(counts)]
    return children


def _places(counts: Int64) -> Int64:
    """Return 0, 1, ... within each of the runs of these lengths."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def _expect_all_reached(tree: Taxonomy) -> None:
    is_reached = np.zeros(tree.num_nodes, dtype=np.bool_)
    for nodes in tree.by_depth:
        is_reached[nodes] = True
    if is_reached.all():
        return
    cycle = _cycle(tree.parent, int(np.argmin(is_reached)))
    if len(cycle) == 1:
        raise WeightsError(f"parent: expected -1 for a root, got node {cycle[0]} as its own parent")
    shown = ", ".join(map(str, cycle[:_MAX_NODES_SHOWN]))
    more = len(cycle) - _MAX_NODES_SHOWN
    raise WeightsError(
        "parent: expected a tree, in which each node has a root above it, got a cycle of nodes "
        f"{shown}{f' and {more} more' if more > 0 else ''}: set the parent of the top one to -1"
    )


def _cycle(parent: Int64, node: int) -> Sequence[int]:
    """Return the nodes of the cycle above a node that no root reaches."""
    order: dict[int, int] = {}
    while node not in order:
        order[node] = len(order)
        node = int(parent[node])
    return list(order)[order[node] :]


# --- layout ---------------------------------------------------------------------------------------


def _leads_and_heights(tree: Taxonomy) -> tuple[Int64, Int64]:
    """Return for each node where it leads, and how many levels lie below its children.

    A node leads to the first node below it, or itself, that is a leaf or has several children. The
    height of a leaf is -1, that of the parent of leaves 0.
    """
    lead, highest = np.arange(tree.num_nodes), np.full(tree.num_nodes, -1)
    height = np.full(tree.num_nodes, -1)
    for nodes in reversed(tree.by_depth):
        counts = tree.num_children[nodes]
        single = nodes[counts == 1]
        lead[single] = lead[tree.children[tree.first_child[single]]]
        height[nodes] = np.where(counts > 1, highest[nodes] + 1, highest[nodes])
        has_parent = nodes[tree.parent[nodes] >= 0]
        np.maximum.at(highest, tree.parent[has_parent], height[has_parent])
    return lead, height


def _next_level(
    tree: Taxonomy, lead: Int64, leads: Int64, is_expanded: Array
) -> tuple[TreeLevel, Int64]:
    """Return the blocks of rows that lead to these nodes, and where their rows lead."""
    counts = np.where(is_expanded, tree.num_children[leads], 1)
    above = np.repeat(np.arange(len(leads)), counts)
    places = np.minimum(
        tree.first_child[leads[above]] + _places(counts), max(0, len(tree.children) - 1)
    )
    nodes = np.where(is_expanded[above], tree.children[places], _CONTINUED)
    next_leads = np.where(is_expanded[above], lead[nodes], leads[above])
    return TreeLevel(nodes, np.concatenate([[0], np.cumsum(counts)])), next_leads


def _rows_of(array: Float32, nodes: Int64) -> Float32:
    """Return the rows of these nodes, and zeros for a row that continues another."""
    rows = array[nodes]
    rows[nodes == _CONTINUED] = 0
    return rows
