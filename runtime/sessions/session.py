"""One task's graph, ready to run: on the CPU, by a native kernel, or on a device."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import onnxruntime as ort

from hsoftmax.bundle import BundleError, Graph
from hsoftmax.models.arrays import Array
from hsoftmax.runtime.cuda import LoweredTask
from hsoftmax.runtime.device_runs import DeviceRuns
from hsoftmax.runtime.devices import (
    DeviceLost,
    DeviceOutOfMemory,
    is_device_loss,
    is_out_of_memory,
)
from hsoftmax.runtime.native import Kernel, StopFlag
from hsoftmax.runtime.weights_guard import WeightsGuard

Feeds = Mapping[str, Array]
InputOrOutput = ort.NodeArg  # with its `name`, `type` and `shape`


class RunOptions(ort.RunOptions):  # type: ignore[misc]  # onnxruntime has no types
    """Options of one run. Setting `terminate` stops it, be it a graph or a native kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.stop = StopFlag()

    @property
    def terminate(self) -> bool:
        return self.stop.is_set

    @terminate.setter
    def terminate(self, value: bool) -> None:
        self.stop.set(value)
        ort.RunOptions.terminate.__set__(self, value)


@dataclass(frozen=True)
class Session:
    """One task's graph, ready to run.

    Attributes:
        on_cpu: True if every operator runs on the CPU. Another device answers a batch in about the
            time of one row.
        kernel: the native kernel that computes the task in place of the graph, if there is one
        lowered: computes the task with the bundle's graphs for the device; None without them
        device_runs: runs the graph on another device than the CPU; None on the CPU
        weights: checks that the mapped weights stay as they are; None if there are none
    """

    task: str
    graph: Graph
    runtime: ort.InferenceSession
    on_cpu: bool = True
    kernel: Kernel | None = None
    weights: WeightsGuard | None = None
    device_runs: DeviceRuns | None = None
    lowered: LoweredTask | None = None

    @property
    def runtime_name(self) -> str:
        """Return the name of the runtime that computes the task: native or onnxruntime."""
        return "onnxruntime" if self.kernel is None else "native"

    @property
    def device(self) -> str:
        """Return the name of the device that computes the task: cpu or cuda."""
        return "cpu" if self.on_cpu else "cuda"

    @cached_property
    def output_names(self) -> list[str]:
        return [port.name for port in self.graph.outputs]

    def run(self, feeds: Feeds, options: RunOptions | None = None) -> list[Array]:
        """Compute the task and return the outputs in the manifest's order.

        Raises:
            WeightsChanged: the weights were changed in place, before the run or during it.
            DeviceLost: the device failed.
            DeviceOutOfMemory: the device has too little memory for this run.
        """
        if self.weights is None:
            return self._run(feeds, options)
        self.weights.expect_unchanged()
        try:
            return self._run(feeds, options)
        finally:
            self.weights.expect_unchanged()

    def _run(self, feeds: Feeds, options: RunOptions | None) -> list[Array]:
        if self.kernel is not None:
            return self.kernel(feeds, None if options is None else options.stop)
        if not self.on_cpu:
            return self._run_on_device(feeds, options)
        outputs: list[Array] = self.runtime.run(self.output_names, feeds, options)
        return outputs

    def _run_on_device(self, feeds: Feeds, options: RunOptions | None) -> list[Array]:
        try:
            if self.lowered is not None:
                return self.lowered(feeds, None if options is None else options.stop)
            assert self.device_runs is not None, "a session of a device has one of the two"
            return self.device_runs.run(self.output_names, feeds, options)
        except Exception as error:
            if is_device_loss(error):
                raise DeviceLost(str(error)) from None
            if is_out_of_memory(error):
                raise DeviceOutOfMemory(str(error)) from None
            raise


def expect_ports(session: Session) -> None:
    """Raise BundleError if the graph has other inputs or outputs than the manifest says."""
    graph, runtime = session.graph, session.runtime
    inputs, outputs = runtime.get_inputs(), runtime.get_outputs()
    for declared, loaded in ((graph.inputs, inputs), (graph.outputs, outputs)):
        expected = sorted(port.name for port in declared)
        actual = sorted(port.name for port in loaded)
        if expected != actual:
            raise BundleError(f"{graph.file}: expected {expected}, got {actual}")
