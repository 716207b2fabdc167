"""The task of a SparseBlockDot on the device: each distinct pair of blocks is read once a run."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hsoftmax.models import SparseBlockDot
from hsoftmax.models.arrays import Array

from .block_level import BlockLevel
from .line_plan import LevelShape, RunCost, plan_pairs
from .steps import DeviceArray, Feeds, Steps

_FLOAT_BYTES = 4


@dataclass(frozen=True)
class DeviceBlockDot:
    """A layer on the device.

    Attributes:
        level: block input * output_blocks + output has [oSize, iSize] weights
        bias: [output blocks, oSize]
    """

    model: SparseBlockDot
    level: BlockLevel
    bias: DeviceArray

    def __call__(self, feeds: Mapping[str, Array]) -> list[Array]:
        """h [B, iWin, iSize], input_index [B, iWin], output_index [B, oWin] -> [B, oWin, oSize]."""
        h, inputs, outputs = (feeds[name] for name in ("h", "input_index", "output_index"))
        result = np.empty((*outputs.shape, self.model.sizes.output_size), np.float32)
        if not inputs.size or not outputs.size:
            result[:] = self.model.bias[outputs]
            return [result]
        step = max(1, self.level.steps.max_bytes // self._row_bytes(inputs, outputs))
        for start in range(0, len(h), step):
            rows = slice(start, start + step)
            result[rows] = self._run(h[rows], inputs[rows], outputs[rows])
        return [result]

    def _row_bytes(self, inputs: Array, outputs: Array) -> int:
        """Return the bytes for one row if it shares no block with another one."""
        sizes = self.model.sizes
        pairs: int = inputs.shape[1] * outputs.shape[1]
        return 3 * _FLOAT_BYTES * pairs * sizes.output_size * (sizes.input_size + 1)

    def _run(self, h: Array, inputs: Array, outputs: Array) -> Array:
        batch, input_window, input_size = h.shape
        block = inputs[:, None, :] * self.model.sizes.output_blocks + outputs[:, :, None]
        row = np.broadcast_to(
            (np.arange(batch)[:, None] * input_window + np.arange(input_window))[:, None],
            block.shape,
        )
        # One run answers all pairs, as their products are added up: the slice of rows is the bound.
        no_limit = RunCost(_FLOAT_BYTES, 1 << 62)
        [lines] = plan_pairs(row.ravel(), block.ravel(), self.level.shape, no_limit)
        place = np.empty(block.size, np.int64)
        place[lines.pair] = lines.place
        opened = self.level.opened(lines, h.reshape(-1, input_size))
        del opened["bias"]
        places = place.reshape(-1, input_window)
        feeds: Feeds = {"place": places, "output_index": outputs.ravel(), "output_bias": self.bias}
        (output,) = self.level.steps.run("block_dot", {**opened, **feeds})
        return output.reshape(*outputs.shape, -1)


def put_block_dot(model: SparseBlockDot, steps: Steps) -> DeviceBlockDot:
    """Copy a layer to the device, with the rows of each block one after another."""
    sizes = model.sizes
    blocks = sizes.input_blocks * sizes.output_blocks
    rows = np.ascontiguousarray(model.weight.transpose(0, 1, 3, 2)).reshape(-1, sizes.input_size)
    size = np.full(blocks, sizes.output_size)
    shape = LevelShape(np.arange(blocks) * sizes.output_size, size, sizes.input_size)
    no_bias = steps.put(np.zeros(len(rows), np.float32))
    level = BlockLevel(steps, shape, steps.put(rows), no_bias)
    return DeviceBlockDot(model, level, steps.put(model.bias))
