"""Runs a graph on a device within the limits of ONNX Runtime there. `sessions` calls it.

One run at a time: two runs of one CUDA session at once may use the same scratch memory. Rows in
slices: some CUDA operators count the elements of a tensor in 32 bits, and a softmax over more gives
wrong numbers without an error. docs/decisions/0041 names the reports.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from hsoftmax.models.arrays import Array

MAX_ELEMENTS = 2**31 - 1  # of a tensor on the device
_ELEMENT_BYTES = 32  # of each element of the largest tensor, in all float32 arrays of a run


def max_elements_within(num_bytes: int) -> int:
    """Return the elements of the largest tensor of runs that may use so many bytes."""
    return max(1, min(MAX_ELEMENTS, num_bytes // _ELEMENT_BYTES))


class GraphRuntime(Protocol):
    """The part of `onnxruntime.InferenceSession` that runs a graph."""

    def run(self, names: list[str], feeds: Mapping[str, Array], options: Any, /) -> list[Array]:  # noqa: ANN401
        """Run the graph and return the named outputs."""


@dataclass(frozen=True)
class DeviceRuns:
    """Runs one session of a device, one run at a time.

    Attributes:
        row_elements: elements of the largest tensor for one row of the inputs, which all have one
            row per row of the batch; 0 if inputs are not to be sliced
        max_elements: limit of the elements of a tensor
        lock: that of the device, as its sessions share memory
    """

    runtime: GraphRuntime
    row_elements: int = 0
    max_elements: int = MAX_ELEMENTS
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(
        self,
        names: list[str],
        feeds: Mapping[str, Array],
        options: Any = None,  # noqa: ANN401
    ) -> list[Array]:
        """Run the graph, in slices of rows if one run would exceed the limit."""
        with self.lock:
            slices = self._slices(feeds)
            if len(slices) == 1:
                return self.runtime.run(names, feeds, options)
            parts = [
                self.runtime.run(names, {name: a[rows] for name, a in feeds.items()}, options)
                for rows in slices
            ]
        return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]

    def _slices(self, feeds: Mapping[str, Array]) -> Sequence[slice]:
        rows = max((len(array) for array in feeds.values()), default=0)
        step = max(1, self.max_elements // self.row_elements) if self.row_elements else rows
        if rows <= step:
            return [slice(0, rows)]
        return [slice(start, start + step) for start in range(0, rows, step)]
