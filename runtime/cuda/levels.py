"""The tasks of a HierarchicalSoftmax on the device, but top_k, which `levels_top_k` has."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hsoftmax.models import HierarchicalSoftmax
from hsoftmax.models.arrays import Array, Float32, Int64

from .block_level import BlockLevel
from .block_tasks import all_log_probs, draw, pick
from .line_plan import LevelShape
from .steps import Steps


@dataclass(frozen=True)
class DeviceLevels:
    """The levels of a model on the device, and what the host keeps of the model.

    Attributes:
        rows: [N] the row of the last level of each target, or None if target t is row t
        row_targets: [rows of the last level] the target of each; num_targets for padding
    """

    levels: tuple[BlockLevel, ...]
    num_targets: int
    rows: Int64 | None
    row_targets: Int64

    def target_log_prob(self, feeds: Mapping[str, Array]) -> list[Array]:
        """hidden [B, H], row [P], target [P] -> log_prob [P]."""
        hidden, row, target = (feeds[name] for name in ("hidden", "row", "target"))
        total = np.zeros(len(row), np.float32)
        if not len(row):
            return [total]
        level_row = target if self.rows is None else self.rows[target]
        for level in reversed(self.levels):
            block = np.searchsorted(level.shape.first, level_row, side="right") - 1
            total += pick(level, hidden, row, block, level_row - level.shape.first[block])
            level_row = block
        return [total]

    def log_probs(self, feeds: Mapping[str, Array]) -> list[Array]:
        """hidden [B, H] -> log_probs [B, N]."""
        rows = self.row_log_probs(feeds["hidden"], depth=len(self.levels))
        return [rows[:, : self.num_targets] if self.rows is None else rows[:, self.rows]]

    def cluster_log_probs(self, feeds: Mapping[str, Array]) -> list[Array]:
        """hidden [B, H] -> log_probs [B, C]."""
        return [self.row_log_probs(feeds["hidden"], depth=1)]

    def row_log_probs(self, hidden: Array, *, depth: int) -> Float32:
        """Return log p of every row of level depth - 1, [B, rows]."""
        total = np.zeros((len(hidden), 1), np.float32)
        for level in self.levels[:depth]:
            total = all_log_probs(level, hidden, total)
        return total

    def sample(self, feeds: Mapping[str, Array]) -> list[Array]:
        """hidden [B, H], noise [B, S, levels] in [0, 1) -> target, log_prob [B, S]."""
        hidden, noise = feeds["hidden"], feeds["noise"]
        batch, samples = noise.shape[:2]
        row = np.repeat(np.arange(batch), samples)
        level_row, total = np.zeros(len(row), np.int64), np.zeros(len(row), np.float32)
        for i, level in enumerate(self.levels if len(row) else ()):
            uniform = noise[:, :, i].ravel()
            position, local = draw(level, hidden, row, level_row, uniform)
            level_row = level.shape.first[level_row] + position
            total += local
        target = level_row if self.rows is None else self.row_targets[level_row]
        return [target.reshape(batch, samples), total.reshape(batch, samples)]


def put_levels(
    model: HierarchicalSoftmax, steps: Steps, allowed: Mapping[int, Float32]
) -> DeviceLevels:
    """Copy a model to the device; `allowed` has the mask of each level that has one."""
    levels = tuple(
        BlockLevel(
            steps,
            LevelShape(level.offsets[:-1], level.block_sizes, model.hidden_size),
            steps.put(level.weight),
            steps.put(level.bias),
            allowed.get(i),
        )
        for i, level in enumerate(model.levels)
    )
    return DeviceLevels(levels, model.num_targets, model.target_rows, model.row_targets)
