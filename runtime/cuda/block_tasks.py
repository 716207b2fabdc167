"""Tasks of one level on the device: the parts of which the tasks of a model are made."""

import math

import numpy as np

from hsoftmax.models.arrays import Array, Float32, Int64

from .block_level import BlockLevel
from .line_plan import Lines, plan_all, plan_pairs
from .steps import DeviceArray, Feeds

Hidden = Array | DeviceArray  # [B, hidden_size]

# Bytes of all arrays of a run that hold one number for each logit.
_PICK_BYTES, _LOG_PROBS_BYTES, _DRAW_BYTES = 16, 20, 64
_DRAWN_PAIR_BYTES = 16  # of each pair for each row of its block


def pick(level: BlockLevel, hidden: Hidden, row: Int64, block: Int64, position: Int64) -> Float32:
    """Return log p within its block of each pair's position, [P]."""
    result = np.empty(len(row), np.float32)
    for lines in plan_pairs(row, block, level.shape, level.cost(_PICK_BYTES)):
        index = lines.place * lines.size + position[lines.pair]
        feeds = {**level.opened(lines, hidden), "index": index}
        (result[lines.pair],) = level.steps.run("target_log_prob", feeds)
    return result


def all_log_probs(level: BlockLevel, hidden: Hidden, parent: Float32) -> Float32:
    """Add to log p of each block's parent [B, blocks] the local ones -> log p of all rows."""
    num_rows = int(level.shape.size.sum())
    result = np.empty((len(parent), num_rows), np.float32)
    for lines in plan_all(np.arange(len(parent)), level.shape, level.cost(_LOG_PROBS_BYTES)):
        first, calls = int(lines.row[0, 0]), lines.num_calls
        rows = slice(first, first + calls)
        of_lines = np.ascontiguousarray(parent[rows, lines.block].T)[:, :, None]
        feeds = {**level.opened(lines, hidden), "parent": of_lines}
        (local,) = level.steps.run("log_probs", feeds)
        _store(level, lines, local, result[rows])
    return result


def _store(level: BlockLevel, lines: Lines, local: Float32, result: Float32) -> None:
    """Store the log p of some blocks [R, D, K] in the columns of their rows."""
    if lines.in_place:
        first = int(level.shape.first[lines.block[0]])
        columns = slice(first, first + len(lines.block) * lines.size)
        result[:, columns] = local.reshape(len(local), -1)
        return
    inside = level.is_inside(lines)
    result[:, level.rows_in(lines)[inside]] = local[:, inside]


def draw(
    level: BlockLevel, hidden: Hidden, row: Int64, block: Int64, uniform: Float32
) -> tuple[Int64, Float32]:
    """Draw a position of its block for each pair: (position, its log p), [P] each."""
    position = np.empty(len(row), np.int64)
    log_prob = np.empty(len(row), np.float32)
    for lines in plan_pairs(row, block, level.shape, level.cost(_DRAW_BYTES)):
        feeds = {
            **level.opened(lines, hidden),
            "allowed": level.allowed_in(lines),
            **_cumulative_sum_inputs(lines.size),
        }
        step = max(1, level.steps.max_bytes // (lines.size * _DRAWN_PAIR_BYTES))
        for start in range(0, len(lines.pair), step):
            pair, place = lines.pair[start : start + step], lines.place[start : start + step]
            pair_feeds: Feeds = {
                "place": place,
                "last": level.shape.size[block[pair]] - 1,
                "uniform": uniform[pair, None],
            }
            position[pair], log_prob[pair] = level.steps.run("sample", {**feeds, **pair_feeds})
    return position, log_prob


def _cumulative_sum_inputs(size: int) -> dict[str, Array]:
    """Return the inputs that add up `size` numbers in n pieces of c, about the root of it."""
    c = math.isqrt(size - 1) + 1
    n = -(-size // c)
    return {
        "padding": np.array([0, 0, 0, 0, 0, n * c - size]),
        "pieces": np.array([-1, n, c]),
        "whole": np.array([-1, n * c]),
        "within": np.triu(np.ones((c, c))),
        "before": np.triu(np.ones((n, n)), 1),
        "width": np.array([size]),
    }
