"""Draws the hierarchy of a bundle as a tree of text, for `hsoftmax inspect`.

The drawing has the first nodes and the last one of each part, with their numbers of targets and the
first labels. It reads the structure of the hierarchy, never its weights.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from rich.text import Text
from rich.tree import Tree

from hsoftmax import bundle
from hsoftmax.models.arrays import Array
from hsoftmax.models.hierarchical_softmax import INNER_LEVELS, INNER_ROWS

_FIRST_CHILDREN = 3  # that are drawn of a node; then the last one
_OPEN_CHILDREN = 1  # whose own children are drawn
_MAX_DEPTH = 4
_FIRST_LABELS = 3
_MAX_LABEL_CHARS = 30
_BINARY_DEPTH = 2
_CHAIN = " > "  # between the labels of nodes that are each the only child of the one before
_WHOLE_TREE = -1  # the level of the node that is the whole tree


@dataclass(frozen=True)
class _Names:
    """Labels of targets and inner nodes; a target without a label is its number."""

    labels: Sequence[str] | None
    inner: Mapping[tuple[int, int], Sequence[str]]  # by level, and the first last row below

    def of_place(self, level: int, first: int) -> Sequence[str]:
        """Return the labels of the inner nodes at a place, each the only child of the one before.

        The place is a row of a level, given by the first row of the last level below it.
        """
        return [_shortened(label) for label in self.inner.get((level, first), ())]

    def of_target(self, target: int) -> str:
        return _shortened(str(target) if self.labels is None else self.labels[target])

    def of_targets(self, targets: Sequence[int]) -> str:
        first = [self.of_target(int(target)) for target in targets[:_FIRST_LABELS]]
        return ", ".join([*first, "…"] if len(targets) > _FIRST_LABELS else first)


def draw_hierarchy(opened: bundle.Bundle) -> Tree | None:
    """Return the drawing, or None for a layer without a softmax."""
    draw = _DRAWINGS.get(opened.manifest.family)
    return None if draw is None else draw(opened)


def _draw_levels(opened: bundle.Bundle) -> Tree:
    tensors = bundle.load_tensors(opened)
    depth = int(opened.manifest.attributes["levels"])
    offsets = [np.asarray(tensors[f"level{i}.offsets"]) for i in range(depth)]
    levels = _Levels(tuple(offsets), _row_targets(tensors, offsets[-1][-1], opened.manifest))
    names = _read_names(opened, tensors)
    sizes = ", ".join(f"{len(tensors[f'level{i}.bias']):,}" for i in range(depth))
    whole = _CHAIN.join(names.of_place(_WHOLE_TREE, 0))
    tree = _root(opened.manifest, f"{_count(depth, 'level')} of {sizes} rows", whole)
    _add_rows(tree, levels, names, 0, range(int(offsets[0][0]), int(offsets[0][1])))
    return tree


@dataclass(frozen=True)
class _Levels:
    """The range of the children of each row, and the target of each row of the last level.

    Attributes:
        row_targets: -1 for a row without a target
    """

    offsets: tuple[Array, ...]
    row_targets: Array

    def number(self, level: int, row: int) -> int:
        """Return the number of a row among the rows of all levels, as the service has it."""
        return row + sum(int(offsets[-1]) for offsets in self.offsets[:level])

    def children(self, level: int, row: int) -> range:
        first, end = self.offsets[level + 1][row : row + 2]
        return range(int(first), int(end))

    def targets(self, level: int, row: int) -> Array:
        """Return the targets below a row, in the order of rows."""
        found = self.row_targets[slice(*self.leaves(level, row))]
        return found[found >= 0]

    def leaves(self, level: int, row: int) -> tuple[int, int]:
        """Return the first row of the last level below a row, and the end of these rows."""
        first, end = row, row + 1
        for offsets in self.offsets[level + 1 :]:
            first, end = int(offsets[first]), int(offsets[end])
        return first, end

    def is_leaf(self, level: int, row: int) -> bool:
        """Return True for a row of the last level, and for one with a single row on each below."""
        while level + 1 < len(self.offsets):
            children = self.children(level, row)
            if len(children) != 1:
                return False
            level, row = level + 1, children[0]
        return True


def _row_targets(tensors: Mapping[str, Array], rows: int, manifest: bundle.Manifest) -> Array:
    num_targets = manifest.num_targets or 0
    targets = np.full(rows, -1, dtype=np.int64)
    own = tensors.get("target_rows", np.arange(num_targets))
    targets[own] = np.arange(num_targets)
    return targets


def _add_rows(
    tree: Tree,
    levels: _Levels,
    names: _Names,
    level: int,
    rows: Sequence[int],
    *,
    depth: int = 1,
) -> None:
    noun = "clusters" if level == 0 and len(levels.offsets) > 1 else "nodes"
    if level + 1 == len(levels.offsets):
        noun = "targets"

    def add(row: int, is_open: bool) -> None:
        branch = tree.add(_line(_row_text(levels, names, level, row)))
        if is_open and depth < _MAX_DEPTH and not levels.is_leaf(level, row):
            below = level + 1, levels.children(level, row)
            while len(below[1]) == 1:  # a row alone in its block is no node of its own
                below = below[0] + 1, levels.children(below[0], below[1][0])
            if below[0] + 1 < len(levels.offsets):
                _add_rows(branch, levels, names, *below, depth=depth + 1)

    _add_some(tree, rows, noun, add)


def _row_text(levels: _Levels, names: _Names, level: int, row: int) -> str:
    targets = levels.targets(level, row)
    labels = names.of_place(level, levels.leaves(level, row)[0])
    if levels.is_leaf(level, row):
        target = names.of_target(int(targets[0])) if len(targets) else "no target"
        return _CHAIN.join([*labels, target])
    kind = "cluster" if level == 0 else "node"
    name = " ".join([f"{kind} {levels.number(level, row)}", *filter(None, [_CHAIN.join(labels)])])
    few = names.of_targets(targets.tolist())
    return f"{name}: {_count(len(targets), 'target')}" + (f" ({few})" if few else "")


def _draw_adaptive(opened: bundle.Bundle) -> Tree:
    """Draw the targets of the head, which have no cluster, and each tail."""
    manifest, names = opened.manifest, _read_names(opened, {})
    bounds = [*manifest.attributes["cutoffs"], manifest.num_targets or 0]
    tree = _root(manifest, f"a head and {_count(len(bounds) - 1, 'tail')}")

    def part(name: str, first: int, end: int) -> Text:
        few = names.of_targets(range(first, end))
        return _line(f"{name}: {_count(end - first, 'target')} ({few})")

    tree.add(part("shortlist", 0, bounds[0]))
    for i, (first, end) in enumerate(pairwise(bounds)):
        tree.add(part(f"cluster {bounds[0] + i}, tail {i}", first, end))
    return tree


def _draw_binary(opened: bundle.Bundle) -> Tree:
    """Draw the nodes next to the root; - and + are the signs of the branches."""
    tensors, names = bundle.load_tensors(opened), _read_names(opened, {})
    attributes = opened.manifest.attributes
    title = f"a binary tree, paths of {attributes['mean_depth']:.1f} nodes on average"
    tree = _root(opened.manifest, f"{title}, at most {attributes['depth']}")
    sign = np.asarray(tensors["sign"])
    _add_branches(tree, sign, names, np.arange(len(sign)), 0)
    return tree


def _add_branches(tree: Tree, sign: Array, names: _Names, targets: Array, depth: int) -> None:
    if len(targets) < 2 or depth == _BINARY_DEPTH:
        return
    for mark, below in (("-", sign[targets, depth] < 0), ("+", sign[targets, depth] > 0)):
        found = targets[below]
        text = names.of_targets(found.tolist())
        if len(found) > 1:
            text = f"{_count(len(found), 'target')} ({text})"
        _add_branches(tree.add(_line(f"{mark} {text}")), sign, names, found, depth + 1)


_DRAWINGS: Mapping[str, Callable[[bundle.Bundle], Tree]] = {
    "HierarchicalSoftmax": _draw_levels,
    "AdaptiveSoftmax": _draw_adaptive,
    "HuffmanSoftmax": _draw_binary,
}


def _root(manifest: bundle.Manifest, structure: str, name: str = "") -> Tree:
    title = f"hierarchy of {name}" if name else "hierarchy"
    return Tree(_line(f"{title}: {_count(manifest.num_targets or 0, 'target')}, {structure}"))


def _add_some(tree: Tree, rows: Sequence[int], noun: str, add: Callable[[int, bool], None]) -> None:
    """Add the first rows and the last one, and how many are left out between them, if several."""
    hidden = len(rows) - _FIRST_CHILDREN - 1
    shown = rows if hidden <= 1 else rows[:_FIRST_CHILDREN]
    for i, row in enumerate(shown):
        add(row, i < _OPEN_CHILDREN)
    if hidden > 1:
        tree.add(_line(f"… {hidden:,} more {noun}"))
        add(rows[-1], False)


def _read_names(opened: bundle.Bundle, tensors: Mapping[str, Array]) -> _Names:
    labels = bundle.read_labels(opened)
    inner = bundle.read_inner_labels(opened, labels or ())
    return _Names(labels, _inner_names(inner, tensors))


def _inner_names(
    inner: Sequence[str], tensors: Mapping[str, Array]
) -> dict[tuple[int, int], list[str]]:
    """Return the labels of each place, which has several where nodes are only children."""
    found: dict[tuple[int, int], list[str]] = {}
    if inner:
        places = zip(tensors[INNER_LEVELS], tensors[INNER_ROWS], strict=True)
        for (level, row), label in zip(places, inner, strict=True):
            found.setdefault((int(level), int(row)), []).append(label)
    return found


def _shortened(label: str) -> str:
    return label if len(label) <= _MAX_LABEL_CHARS else f"{label[: _MAX_LABEL_CHARS - 1]}…"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _line(text: str) -> Text:
    """Return text that is never wrapped."""
    return Text(text, no_wrap=True, overflow="ignore")
