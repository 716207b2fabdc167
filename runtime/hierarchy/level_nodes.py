"""The nodes of a hierarchical softmax: the rows of its levels.

Row r of level 0 is node r, as it is cluster r. The rows of level 1 follow, and so on. A row alone
in its block has the probability of the row above it. So both are one place, and its number is that
of the upper row. A place with a single row of the last level below it is the target of that row.
"""

from collections.abc import Mapping
from functools import cached_property

import numpy as np

from hsoftmax.models.arrays import Array, Float32, Float64, Int64
from hsoftmax.models.hierarchical_softmax import INNER_LEVELS, INNER_ROWS

from .nodes import Children, ExpectRunning
from .stored_rows import log_softmax, logits

_Place = tuple[int, int]  # a level and a row of it


class LevelHierarchy:
    """The rows of all levels. A row of the last level without a target is padding, and no child."""

    def __init__(self, tensors: Mapping[str, Array], num_levels: int, num_targets: int) -> None:
        self._tensors = tensors
        self._offsets = [np.asarray(tensors[f"level{i}.offsets"]) for i in range(num_levels)]
        sizes = [len(tensors[f"level{i}.bias"]) for i in range(num_levels)]
        self._starts = np.concatenate([[0], np.cumsum(sizes)])
        self._num_targets = num_targets
        self._target_rows = tensors.get("target_rows")

    @property
    def nodes(self) -> range:
        return range(int(self._starts[-1]))

    def has_node(self, node: int) -> bool:
        return node in self.nodes

    def path(self, node: int | None) -> tuple[int, ...]:
        return tuple(self._number(place) for place in self._path(node))

    def parent(self, target: int) -> int | None:
        row = target if self._target_rows is None else int(self._target_rows[target])
        level, row = self._top((len(self._offsets) - 1, row))
        return None if level == 0 else self._number(self._top((level - 1, self._block(level, row))))

    def num_targets(self, node: int) -> int:
        level, row = self._place(node)
        first, stop = self._last_rows(level, np.array([row, row + 1]))
        return int(self._count_targets(first, stop))

    def children(self, node: int | None) -> Children:
        first, level, is_child = self._child_rows(node)
        rows = first + np.flatnonzero(is_child)
        last, stop = self._last_rows(level, rows), self._last_rows(level, rows + 1)
        return Children(
            node=self._starts[level] + rows,
            target=np.where(stop - last == 1, self._targets_of(last), -1),
            num_targets=self._count_targets(last, stop),
        )

    def rows(self, node: int | None) -> int:
        blocks = [self._slice(level, self._block(level, row)) for level, row in self._path(node)]
        below = self._block_below(node)
        blocks += [] if below is None else [self._slice(*below)]
        return sum(one.stop - one.start for one in blocks)

    def log_probs(
        self, hidden: Float32, node: int | None, expect_running: ExpectRunning
    ) -> tuple[Array, Array]:
        total = np.zeros(len(hidden))
        path = [total]
        for level, row in self._path(node):
            block = self._block(level, row)
            local = self._local(hidden, level, block, expect_running)
            total = total + local[:, row - self._slice(level, block).start]
            path.append(total)
        below, (_, _, is_child) = self._block_below(node), self._child_rows(node)
        if below is None:
            return np.stack(path, axis=1), total[:, None] + np.zeros(np.count_nonzero(is_child))
        local = self._local(hidden, *below, expect_running)[:, is_child]
        return np.stack(path, axis=1), total[:, None] + local

    @cached_property
    def inner_nodes(self) -> tuple[int | None, ...]:
        """The number of each labelled inner node of a tree; None for the whole tree."""
        if INNER_ROWS not in self._tensors:
            return ()
        levels, last = self._tensors[INNER_LEVELS], self._tensors[INNER_ROWS]
        rows = np.array(last)
        for level in range(len(self._offsets) - 1, 0, -1):
            below = levels < level
            rows[below] = np.searchsorted(self._offsets[level], rows[below], side="right") - 1
        places = zip(levels.tolist(), rows.tolist(), strict=True)
        return tuple(None if i < 0 else self._number(self._top((i, row))) for i, row in places)

    # --- places -----------------------------------------------------------------------------------

    def _place(self, node: int) -> _Place:
        """Return the upper row of a place; any of its rows may be given."""
        level = int(np.searchsorted(self._starts, node, side="right")) - 1
        return self._top((level, node - int(self._starts[level])))

    def _number(self, place: _Place) -> int:
        level, row = place
        return int(self._starts[level]) + row

    def _top(self, place: _Place) -> _Place:
        level, row = place
        while level:
            block = self._block(level, row)
            if self._slice(level, block) != slice(row, row + 1):
                break
            level, row = level - 1, block
        return level, row

    def _path(self, node: int | None) -> list[_Place]:
        if node is None:
            return []
        path = [self._place(node)]
        while (level := path[0][0]) > 0:
            path.insert(0, self._top((level - 1, self._block(*path[0]))))
        return path

    def _block(self, level: int, row: int) -> int:
        return int(np.searchsorted(self._offsets[level], row, side="right")) - 1

    def _slice(self, level: int, block: int) -> slice:
        first, stop = self._offsets[level][block : block + 2]
        return slice(int(first), int(stop))

    def _block_below(self, node: int | None) -> tuple[int, int] | None:
        """Return (level, block) of a node's children; None if a single target is below it."""
        if node is None:
            return 0, 0
        level, row = self._place(node)
        while level + 1 < len(self._offsets):
            block = self._slice(level + 1, row)
            if block.stop - block.start > 1:
                return level + 1, row
            level, row = level + 1, block.start
        return None

    def _child_rows(self, node: int | None) -> tuple[int, int, Array]:
        """Return the first row below a node, its level, and which rows from it on are children."""
        below = self._block_below(node)
        if below is None:
            assert node is not None, "a block is below the whole tree"
            level, row = self._place(node)
            rows = slice(row, row + 1)
        else:
            level, rows = below[0], self._slice(*below)
        bounds = self._last_rows(level, np.arange(rows.start, rows.stop + 1))
        return rows.start, level, self._count_targets(bounds[:-1], bounds[1:]) > 0

    def _local(
        self, hidden: Float32, level: int, block: int, expect_running: ExpectRunning
    ) -> Float64:
        name, rows = f"level{level}", self._slice(level, block)
        products = logits(
            self._tensors, f"{name}.weight", rows, hidden, expect_running, block=block
        )
        return log_softmax(products + self._tensors[f"{name}.bias"][rows])

    # --- targets ----------------------------------------------------------------------------------

    def _last_rows(self, level: int, rows: Int64) -> Int64:
        """Return the first row of the last level below each of these rows, or bounds of rows."""
        for offsets in self._offsets[level + 1 :]:
            rows = offsets[rows]
        return rows

    @cached_property
    def _row_targets(self) -> Int64:
        """[rows of the last level]: the target of each row, or -1."""
        targets = np.full(len(self._tensors[f"level{len(self._offsets) - 1}.bias"]), -1)
        targets[self._target_rows] = np.arange(self._num_targets)
        return targets

    @cached_property
    def _targets_before(self) -> Int64:
        """[rows of the last level + 1]: the number of targets in the rows before each."""
        return np.concatenate([[0], np.cumsum(self._row_targets >= 0)])

    def _targets_of(self, rows: Int64) -> Int64:
        if self._target_rows is None:
            return np.where(rows < self._num_targets, rows, -1)
        return self._row_targets[rows]

    def _count_targets(self, first: Int64, stop: Int64) -> Int64:
        if self._target_rows is None:
            return np.minimum(stop, self._num_targets) - np.minimum(first, self._num_targets)
        return self._targets_before[stop] - self._targets_before[first]
