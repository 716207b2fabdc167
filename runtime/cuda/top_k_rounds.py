"""Rounds of top_k: each opens blocks for some rows, and merges their best targets.

The device proves that a row is finished: its k-th best log p exceeds that of its best block left.
"""

from dataclasses import dataclass

import numpy as np

from hsoftmax.models.arrays import Array, Float32, Int64

from .block_level import BlockLevel
from .line_plan import Lines, plan_pairs
from .steps import DeviceArray, Feeds

_VALUE_BYTES = 28  # of each logit, in all arrays of a run
CANDIDATE_BYTES = 64  # of each candidate of a row


@dataclass(frozen=True)
class Best:
    """The k best targets of each row so far.

    Attributes:
        log_prob: [B, k] descending; -inf where there are fewer
        target: [B, k]; `no_target` where there are fewer
        proven: [B] True if no block that the row has not opened can improve them
    """

    log_prob: Float32
    target: Int64
    proven: Array
    no_target: int

    @property
    def k(self) -> int:
        return int(self.log_prob.shape[1])


def no_best(rows: int, k: int, no_target: int) -> Best:
    """Return the start: no target for any row."""
    return Best(
        np.full((rows, k), -np.inf, np.float32),
        np.full((rows, k), no_target),
        np.zeros(rows, np.bool_),
        no_target,
    )


@dataclass(frozen=True)
class BlocksOfRows:
    """Blocks that rows open: P pairs, sorted by row and then by block.

    Attributes:
        row, block: [P]
        bound: [P] log p of the block
        rest_bound: [B] for each row, log p of the best block that it has not opened after these
    """

    row: Int64
    block: Int64
    bound: Float32
    rest_bound: Float32


@dataclass(frozen=True)
class TargetOrder:
    """The targets of a level's rows where they are in any order.

    Attributes:
        row_target: [rows] the target of each row, on the host or on the device
        rank: [rows] the position in its block of the row that is next by target
    """

    row_target: Int64 | DeviceArray
    rank: Int64


def open_blocks(
    level: BlockLevel,
    hidden: Array | DeviceArray,
    blocks: BlocksOfRows,
    best: Best,
    order: TargetOrder | None = None,
) -> None:
    """Open blocks and merge their best targets into `best`, in place."""
    cost = level.cost(_VALUE_BYTES)
    for lines in plan_pairs(blocks.row, blocks.block, level.shape, cost):
        by_row = np.argsort(lines.pair)  # pairs are sorted by row and block, and so their numbers
        pair, place = lines.pair[by_row], lines.place[by_row]
        rows, start, count = np.unique(blocks.row[pair], return_index=True, return_counts=True)
        opened = {
            **level.opened(lines, hidden),
            "allowed": level.allowed_in(lines),
            **_order_inputs(level, lines, order),
        }
        k_in = min(best.k, lines.size)
        step = max(1, level.steps.max_bytes // (int(count.max()) * k_in * CANDIDATE_BYTES))
        for i in range(0, len(rows), step):
            chosen = slice(i, i + step)
            columns = np.arange(int(count[chosen].max()))
            number = start[chosen, None] + np.minimum(columns, count[chosen, None] - 1)
            is_open = columns < count[chosen, None]
            candidates = _candidates(level, blocks, pair[number], place[number], is_open)
            feeds = {**opened, **candidates}
            _merge(level, feeds, k_in, rows[chosen], blocks.rest_bound, best)


def _candidates(
    level: BlockLevel, blocks: BlocksOfRows, pair: Int64, place: Int64, is_open: Array
) -> dict[str, Array]:
    """Return the inputs for the blocks of some rows: pair, place and is_open are [B, m]."""
    return {
        "place": place,
        "bound": np.where(is_open, blocks.bound[pair], np.float32(-np.inf)),
        "first": level.first_target + level.shape.first[blocks.block[pair]],
    }


def _merge(
    level: BlockLevel, feeds: Feeds, k_in: int, rows: Int64, rest_bound: Float32, best: Best
) -> None:
    all_new = feeds["place"].shape[1] * k_in
    k_new = min(best.k, all_new)
    sizes = {"k_in": [k_in], "calls": [-1, k_in], "k_new": [k_new], "width": [best.k + k_new]}
    sizes |= {"k": [best.k], "no_target": [best.no_target]}
    if "order" in feeds:
        sizes |= {"all_new": [all_new]}
    inputs = {name: np.array(value) for name, value in sizes.items()} | {
        "rest_bound": rest_bound[rows],
        "best_log_prob": best.log_prob[rows],
        "best_target": best.target[rows],
    }
    results = level.steps.run("top_k", {**feeds, **inputs})
    best.log_prob[rows], best.target[rows], best.proven[rows] = results


def _order_inputs(level: BlockLevel, lines: Lines, order: TargetOrder | None) -> Feeds:
    if order is None:
        return {}
    # Padding stays behind the rows of the block, in the order of positions.
    inside = level.is_inside(lines)
    rank = np.where(inside, order.rank[level.rows_in(lines)], np.arange(lines.size))
    return {
        "order": rank[:, None],
        "zeros": np.zeros((1, lines.num_calls, 1), np.int64),
        "row_target": order.row_target,
    }
