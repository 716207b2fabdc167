"""top_k of a HierarchicalSoftmax on the device: blocks in rounds, best first, until there is proof.

A target's log p is at most that of its block. A row opens its 4 best blocks, then 16, then 32; the
rows that still have no proof open all blocks. Rows with a limit on blocks open no more than that,
unless they lack k targets.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from hsoftmax.models.arrays import Array, Float32, Int64

from .levels import DeviceLevels
from .top_k_rounds import Best, BlocksOfRows, TargetOrder, no_best, open_blocks

_ROUNDS = (4, 16, 32)  # blocks that a row has opened after each round
_MIN_TARGETS_PER_K = 64  # with a larger k, rows open all blocks at once
_MAX_PAIRS = 1 << 20  # pairs of a row and a block that are planned together


@dataclass(frozen=True)
class LevelsTopK:
    """The task top_k.

    Attributes:
        order: of the targets of the last level, where they are in any order
        targets_in_block: [blocks] targets in each block of the last level
    """

    model: DeviceLevels
    order: TargetOrder | None
    targets_in_block: Int64

    def __call__(self, feeds: Mapping[str, Array]) -> list[Array]:
        """hidden [B, H], k [1], max_blocks [1] -> log_prob, target [B, k], blocks, exact [B]."""
        hidden, k, limit = feeds["hidden"], int(feeds["k"][0]), int(feeds["max_blocks"][0])
        best = no_best(len(hidden), k, self.model.num_targets)
        opened = np.zeros(len(hidden), np.int64)
        if len(hidden):
            ranked = self._ranked(hidden, self._num_ranked(k, limit))
            goal = self._goal(ranked, k, limit)
            self._open(hidden, ranked, goal, best, opened)
        return [best.log_prob, best.target, opened, best.proven]

    @property
    def _num_blocks(self) -> int:
        return self.model.levels[-1].shape.num_blocks

    def _is_unlimited(self, limit: int) -> bool:
        return limit == 0 or limit >= self._num_blocks

    def _num_ranked(self, k: int, limit: int) -> int:
        """Return how many blocks have to be known in order: one more than a row opens so."""
        if not self._is_unlimited(limit):
            return self._num_blocks
        if k * _MIN_TARGETS_PER_K > self.model.num_targets:
            return 1
        return min(_ROUNDS[-1] + 1, self._num_blocks)

    def _ranked(self, hidden: Array, count: int) -> "_Ranked":
        """Return the best blocks of the last level for each row, and log p of them."""
        inner = self.model.levels[:-1]
        if len(inner) == 1:
            return _rank_on_device(self.model, self.order, hidden, count)
        bound = self.model.row_log_probs(hidden, depth=len(inner))
        block = np.argsort(-bound, axis=1, kind="stable")[:, :count]
        return _Ranked(block, np.take_along_axis(bound, block, axis=1), bound)

    def _goal(self, ranked: "_Ranked", k: int, limit: int) -> Int64:
        """Return the most blocks that each row opens."""
        if self._is_unlimited(limit):
            return np.full(len(ranked.block), self._num_blocks)
        targets = np.cumsum(self.targets_in_block[ranked.block], axis=1)
        enough = (targets < k).sum(axis=1) + 1
        goal: Int64 = np.minimum(np.maximum(limit, enough), self._num_blocks)
        return goal

    def _open(
        self, hidden: Array, ranked: "_Ranked", goal: Int64, best: Best, opened: Int64
    ) -> None:
        """Open blocks round by round for the rows that have no proof and may open another one."""
        ends = [*(end for end in _ROUNDS if end < ranked.block.shape[1]), self._num_blocks]
        for end in ends:
            rows = np.flatnonzero(~best.proven & (opened < goal))
            if not len(rows):
                return
            if end == self._num_blocks and ranked.block.shape[1] < end:
                self._open_all(hidden, ranked, rows, best)
                opened[rows] = end
            else:
                new_end = np.minimum(end, goal[rows])
                blocks = _next_blocks(ranked, rows, opened[rows], new_end)
                open_blocks(self.model.levels[-1], hidden, blocks, best, self.order)
                opened[rows] = new_end
        best.proven[opened == self._num_blocks] = True

    def _open_all(self, hidden: Array, ranked: "_Ranked", rows: Int64, best: Best) -> None:
        """Open all blocks of these rows, from the start on, a slice of rows at a time."""
        level, blocks = self.model.levels[-1], np.arange(self._num_blocks)
        bounds = ranked.all_bounds
        if bounds is None:
            bounds = self.model.row_log_probs(hidden[rows], depth=len(self.model.levels) - 1)
        else:
            bounds = bounds[rows]
        start = no_best(len(rows), best.k, best.no_target)
        step = max(1, _MAX_PAIRS // len(blocks))
        rest = np.full(len(rows), -np.inf, np.float32)
        for i in range(0, len(rows), step):
            part = np.arange(i, min(i + step, len(rows)))
            opened = BlocksOfRows(
                np.repeat(part, len(blocks)),
                np.tile(blocks, len(part)),
                bounds[part].ravel(),
                rest,
            )
            open_blocks(level, hidden[rows], opened, start, self.order)
        best.log_prob[rows], best.target[rows] = start.log_prob, start.target
        best.proven[rows] = True


@dataclass(frozen=True)
class _Ranked:
    """Blocks of the last level in descending order of log p, [B, m], and log p of all, if known."""

    block: Int64
    bound: Float32
    all_bounds: Float32 | None = None


def _rank_on_device(
    model: DeviceLevels, order: TargetOrder | None, hidden: Array, count: int
) -> _Ranked:
    """Rank the rows of level 0: the top_k of its one block.

    A row of log p -inf is no target of the graph. Any other stands for it: its bound stays -inf.
    """
    level, rows = replace(model.levels[0], allowed=None), len(hidden)
    num_rows = int(level.shape.size[0])
    zero = np.zeros(rows, np.int64)
    best = no_best(rows, count, num_rows)
    rest = np.full(rows, -np.inf, np.float32)
    blocks = BlocksOfRows(np.arange(rows), zero, zero.astype(np.float32), rest)
    of_rows = None
    if order is not None:  # the graph takes targets: here a row is its own
        of_rows = TargetOrder(np.arange(num_rows), np.arange(num_rows))
    open_blocks(level, hidden, blocks, best, of_rows)
    return _Ranked(np.minimum(best.target, num_rows - 1), best.log_prob)


def _next_blocks(ranked: _Ranked, rows: Int64, start: Int64, end: Int64) -> BlocksOfRows:
    """Return the blocks start to end, by rank, of these rows."""
    width = ranked.block.shape[1]
    rank = np.arange(width)
    is_next = (rank >= start[:, None]) & (rank < end[:, None])
    at, column = np.nonzero(is_next)
    row = rows[at]
    block, bound = ranked.block[row, column], ranked.bound[row, column]
    by_block = np.lexsort((block, row))
    rest_bound = np.full(len(ranked.block), -np.inf, np.float32)
    has_rest = end < width
    rest_bound[rows[has_rest]] = ranked.bound[rows[has_rest], end[has_rest]]
    return BlocksOfRows(row[by_block], block[by_block], bound[by_block], rest_bound)
