"""The blocks of one softmax level on the device, and the inputs with which graphs open them."""

from dataclasses import dataclass

import numpy as np

from hsoftmax.models.arrays import Array, Float32, Int64

from .line_plan import LevelShape, Lines, RunCost
from .steps import DeviceArray, Steps

_NOTHING_EXCLUDED = np.zeros((1, 1, 1), np.float32)


@dataclass(frozen=True)
class BlockLevel:
    """A level whose weights are on the device.

    Attributes:
        weight: [rows, hidden_size]
        bias: [rows]
        allowed: [rows] 0, or -inf for a row that is never drawn and in no top-k; None for no such
        first_target: the target of row 0, for top-k of a level whose rows are targets
    """

    steps: Steps
    shape: LevelShape
    weight: DeviceArray
    bias: DeviceArray
    allowed: Float32 | None = None
    first_target: int = 0

    def cost(self, value_bytes: int) -> RunCost:
        """Return the cost of runs that hold so many bytes for each logit."""
        return RunCost(value_bytes, self.steps.max_bytes)

    def opened(self, lines: Lines, hidden: Array | DeviceArray) -> dict[str, Array | DeviceArray]:
        """Return the inputs of a graph that opens these lines."""
        weight, bias = self._in_place(lines) if lines.in_place else self._copied(lines)
        return {"hidden": hidden, "row": lines.row, "weight": weight, "bias": bias}

    def allowed_in(self, lines: Lines) -> Float32:
        """Return `allowed` for the rows of each line, [D, 1, K], or one 0 for all of them."""
        if self.allowed is None:
            return _NOTHING_EXCLUDED
        values = self.allowed[self.rows_in(lines)]
        return np.where(self.is_inside(lines), values, np.float32(-np.inf))[:, None]

    def rows_in(self, lines: Lines) -> Int64:
        """Return the rows of the level in each line, [D, K]; padding is its last row."""
        position = np.arange(lines.size)
        last = self.shape.size[lines.block] - 1
        rows: Int64 = self.shape.first[lines.block][:, None] + np.minimum(position, last[:, None])
        return rows

    def is_inside(self, lines: Lines) -> Array:
        """Return bool [D, K]: False for padding."""
        inside: Array = np.arange(lines.size) < self.shape.size[lines.block][:, None]
        return inside

    def _in_place(self, lines: Lines) -> tuple[DeviceArray, DeviceArray]:
        first, blocks = int(self.shape.first[lines.block[0]]), len(lines.block)
        width = self.shape.hidden_size
        return (
            self.weight.part(first * width, blocks, lines.size, width),
            self.bias.part(first, blocks, 1, lines.size),
        )

    def _copied(self, lines: Lines) -> tuple[DeviceArray, DeviceArray]:
        weight, bias = self.steps.run_on_device(
            "blocks",
            {
                "level_weight": self.weight,
                "level_bias": self.bias,
                "first": self.shape.first[lines.block],
                "size": self.shape.size[lines.block],
                "place": np.arange(lines.size),
            },
        )
        return weight, bias
