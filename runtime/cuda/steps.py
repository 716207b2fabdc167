"""Runs the graphs of a bundle on a device, over one copy of its weights there.

The graphs take weights as inputs. An input is an array of the host, which a run copies to where the
graph reads it, or a part of an array that is on the device already. The device is CUDA in the
service, and the CPU where graphs are verified.
"""

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import onnxruntime as ort

from hsoftmax.models.arrays import Array

DeviceType = Literal["cpu", "cuda"]


class StopRequest(Protocol):
    """Tells a run whether to stop, as `StopFlag` of the native kernels does.

    This package cannot import that class, because it must run without the library cffi.
    """

    @property
    def is_set(self) -> bool:
        """Return True if the run is to stop."""


class StoppedRun(Exception):
    """The caller stopped a task between two runs of its graph."""


@dataclass(frozen=True)
class DeviceArray:
    """A C-order array on the device, or a part of one.

    Attributes:
        start: its first element in the array that `owner` holds
    """

    owner: ort.OrtValue
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int = 0

    @property
    def pointer(self) -> int:
        return int(self.owner.data_ptr()) + self.start * self.dtype.itemsize

    def part(self, start: int, *shape: int) -> "DeviceArray":
        """Return the elements from `start` on under another shape.

        Raises:
            ValueError: they end after this array.
        """
        if start + math.prod(shape) > math.prod(self.shape):
            raise ValueError(f"expected a part of {self.shape}, got {shape} from {start} on")
        return DeviceArray(self.owner, self.dtype, shape, self.start + start)


Feeds = Mapping[str, Array | DeviceArray]


@dataclass
class Steps:
    """The graphs of a bundle for one device, by file name without its suffix.

    Attributes:
        max_bytes: bound of the temporary arrays of one run, where one block and one row allow it
        lock: held by the task that runs; one thread at a time uses the device
    """

    sessions: Mapping[str, ort.InferenceSession]
    device: DeviceType
    max_bytes: int
    stop: StopRequest | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, array: Array) -> DeviceArray:
        """Copy an array to the device, or keep it where the device is the CPU."""
        array = np.ascontiguousarray(array)
        owner = ort.OrtValue.ortvalue_from_numpy(array, self.device, 0)
        return DeviceArray(owner, array.dtype, array.shape)

    def run(self, name: str, feeds: Feeds) -> list[Array]:
        """Run a graph and return its outputs, copied to the host.

        Raises:
            StoppedRun: `stop` is set.
        """
        binding = self._bound(name, feeds, "cpu")
        outputs: list[Array] = binding.copy_outputs_to_cpu()
        return outputs

    def run_on_device(self, name: str, feeds: Feeds) -> list[DeviceArray]:
        """Run a graph and return its outputs, which stay on the device. Raises StoppedRun."""
        binding = self._bound(name, feeds, self.device)
        return [_device_array(value) for value in binding.get_outputs()]

    def _bound(self, name: str, feeds: Feeds, outputs_on: DeviceType) -> ort.IOBinding:
        if self.stop is not None and self.stop.is_set:
            raise StoppedRun(f"{name}: stopped between two runs")
        session = self.sessions[name]
        binding = session.io_binding()
        for input_name, array in feeds.items():
            self._bind(binding, input_name, array)
        for output in session.get_outputs():
            binding.bind_output(output.name, outputs_on)
        session.run_with_iobinding(binding)
        return binding

    def _bind(self, binding: ort.IOBinding, name: str, array: Array | DeviceArray) -> None:
        if isinstance(array, DeviceArray):
            shape: Sequence[int] = list(array.shape)
            binding.bind_input(name, self.device, 0, array.dtype.type, shape, array.pointer)
        else:
            binding.bind_cpu_input(name, np.ascontiguousarray(array))


def _device_array(value: ort.OrtValue) -> DeviceArray:
    return DeviceArray(value, np.dtype(np.float32), tuple(value.shape()))
