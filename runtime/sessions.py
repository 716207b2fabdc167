"""Opens ONNX Runtime sessions, with the options that each caller needs.

    open_sessions               the service: one thread pool for all sessions of the process
    open_session                verification and benchmarks: a thread pool per session
    open_single_thread_session  batch scoring on the command line: several runs in parallel

Prepacking is off everywhere: it would copy the weights of every dense product out of the mapped
file into each process.
"""

from base64 import b64decode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from hsoftmax.bundle import WEIGHTS, Bundle, BundleError, Graph, Port
from hsoftmax.models.arrays import Array

from .devices import CPU, CUDA, ON_CPU, ON_CUDA, Device, DeviceChoice, DeviceError
from .weights_guard import WeightsGuard

Feeds = Mapping[str, Array]

# y = Identity(x), float: the smallest graph that tests CUDA.
_IDENTITY_GRAPH = b64decode(
    "CAo6LwoQCgF4EgF5IghJZGVudGl0eRIBZ1oLCgF4EgYKBAgBEgBiCwoBeRIGCgQIARIAQgQKABAV"
)
_TASKS_WITHOUT_ARENA = {"target_log_prob"}  # they need less memory without it


@dataclass(frozen=True)
class Session:
    """One task's graph, ready to run.

    Attributes:
        on_cpu: True if every operator runs on the CPU. Another device answers a batch in about the
            time of one row.
        weights: checks that the mapped weights stay as they are; None if there are none
    """

    task: str
    graph: Graph
    runtime: ort.InferenceSession
    on_cpu: bool = True
    weights: WeightsGuard | None = None

    @cached_property
    def output_names(self) -> list[str]:
        return [port.name for port in self.graph.outputs]

    def run(self, feeds: Feeds, options: ort.RunOptions | None = None) -> list[Array]:
        """Run the graph and return the outputs in the manifest's order.

        Raises:
            WeightsChanged: the weights were changed in place, before the run or during it.
        """
        if self.weights is None:
            return self._run(feeds, options)
        self.weights.expect_unchanged()
        try:
            return self._run(feeds, options)
        finally:
            self.weights.expect_unchanged()

    def _run(self, feeds: Feeds, options: ort.RunOptions | None) -> list[Array]:
        outputs: list[Array] = self.runtime.run(self.output_names, feeds, options)
        return outputs


def choose_device(choice: DeviceChoice, threads: int) -> Device:
    """Return the requested device, and create the process's pool of `threads` threads.

    The pool is created first because no session opens without it, not even the test for CUDA.

    Raises:
        DeviceError: `cuda` was requested but does not work; the CPU never replaces it silently.
    """
    _create_thread_pool(threads)
    if choice == "cpu":
        return ON_CPU
    problem = _cuda_problem()
    if problem is None:
        return ON_CUDA
    if choice == "cuda":
        raise DeviceError(f"device: expected cuda, got none: {problem}")
    return ON_CPU


def _create_thread_pool(threads: int) -> None:
    with suppress(Exception):  # the process has one pool; its first caller sets the size
        ort.set_global_thread_pool_sizes(threads, 1)


def open_sessions(bundle: Bundle, device: Device) -> dict[str, Session]:
    """Open a session for each task of the bundle and run it once.

    Raises:
        BundleError: a graph that does not load, does not fit the manifest, or does not run.
    """
    guard = WeightsGuard(bundle.file(WEIGHTS)) if WEIGHTS in bundle.manifest.files else None
    return {
        task: _open_task(bundle, task, graph, device, guard)
        for task, graph in bundle.manifest.tasks.items()
    }


def open_session(graph: Path) -> ort.InferenceSession:
    """Open a CPU session with its own threads, for running one graph at a time.

    The settings per task were measured: docs/decisions/0006.

    Raises:
        BundleError: a graph that does not load.
    """
    options = ort.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = options.enable_mem_pattern = (
        graph.stem not in _TASKS_WITHOUT_ARENA
    )
    return _open_graph(graph, options, [CPU])


def open_single_thread_session(graph: Path) -> ort.InferenceSession:
    """Open a CPU session in which every run uses one thread.

    Raises:
        BundleError: a graph that does not load.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # The arena may stay on: it keeps the memory of the largest batch, and batches are bounded.
    return _open_graph(graph, options, [CPU])


def _open_task(
    bundle: Bundle, task: str, graph: Graph, device: Device, weights: WeightsGuard | None
) -> Session:
    path, providers = bundle.file(graph.file), device.providers_of(task)
    try:
        runtime = _open_graph(path, _shared_pool_options(), providers)
        session = Session(task, graph, runtime, providers == (CPU,), weights)
        _expect_ports(session)
        session.run({port.name: _minimal_input(port) for port in graph.inputs})
    except BundleError:
        raise
    except Exception as error:
        raise _graph_error(path, error) from None
    return session


def _open_graph(
    path: Path, options: ort.SessionOptions, providers: Sequence[Any]
) -> ort.InferenceSession:
    options.add_session_config_entry("session.disable_prepacking", "1")  # keeps the weights mapped
    options.log_severity_level = 4  # an error is also raised, and reported there
    try:
        return ort.InferenceSession(str(path), options, providers=list(providers))
    except Exception as error:
        raise _graph_error(path, error) from None


def _graph_error(path: Path, error: Exception) -> BundleError:
    reason = str(error).splitlines()[0]
    return BundleError(f"{path}: expected a graph that runs, got: {reason}")


def _shared_pool_options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.use_per_session_threads = False
    # An arena keeps the memory of the largest batch; a memory pattern reserves each block twice.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    return options


def _expect_ports(session: Session) -> None:
    graph, runtime = session.graph, session.runtime
    inputs, outputs = runtime.get_inputs(), runtime.get_outputs()
    for declared, loaded in ((graph.inputs, inputs), (graph.outputs, outputs)):
        expected = sorted(port.name for port in declared)
        actual = sorted(port.name for port in loaded)
        if expected != actual:
            raise BundleError(f"{graph.file}: expected {expected}, got {actual}")


def _minimal_input(port: Port) -> Array:
    """Return the smallest valid input: one row, one pair, one for each count."""
    shape = [size if isinstance(size, int) else 1 for size in port.shape]
    fill = {"k": 1, "noise": 0.5}.get(port.name, 0)
    return np.full(shape, fill, dtype=port.dtype)


def _cuda_problem() -> str | None:
    """Return the reason why CUDA cannot be used, or None if it can."""
    if CUDA not in ort.get_available_providers():
        return "this onnxruntime is built without it (the extra `service-cuda` brings one)"
    with suppress(Exception):
        ort.preload_dlls()
    try:
        providers = _cuda_providers()
    except Exception as error:
        return str(error).splitlines()[0]
    return None if CUDA in providers else "its libraries or its driver do not load"


def _cuda_providers() -> list[str]:
    """Return the execution providers that a CUDA session actually gets."""
    options = _shared_pool_options()
    options.log_severity_level = 3
    session = ort.InferenceSession(_IDENTITY_GRAPH, options, list(ON_CUDA.providers))
    providers: list[str] = session.get_providers()
    return providers
