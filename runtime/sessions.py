"""The one place that opens ONNX Runtime sessions, with the options that each user needs.

    open_sessions               the service: one pool of threads for all sessions of the process
    open_session                verification and benchmarks: a pool of the session's own
    open_single_thread_session  batch scoring on the command line: several runs side by side

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

from hsoftmax.bundle import Bundle, BundleError, Graph, Port
from hsoftmax.models.arrays import Array

from .devices import CPU, CUDA, ON_CPU, ON_CUDA, Device, DeviceChoice, DeviceError

Feeds = Mapping[str, Array]

# y = Identity(x), float: the smallest graph that shows whether CUDA really comes up.
_PROBE = b64decode("CAo6LwoQCgF4EgF5IghJZGVudGl0eRIBZ1oLCgF4EgYKBAgBEgBiCwoBeRIGCgQIARIAQgQKABAV")
_FRUGAL = {"target_log_prob"}  # tasks that need less memory without an arena


@dataclass(frozen=True)
class Session:
    """One task's graph, ready to run.

    Attributes:
        on_cpu: whether nothing is handed to another device, which answers a batch in about the
            time of a row
    """

    task: str
    graph: Graph
    runtime: ort.InferenceSession
    on_cpu: bool = True

    @cached_property
    def output_names(self) -> list[str]:
        return [port.name for port in self.graph.outputs]

    def run(self, feeds: Feeds, options: ort.RunOptions | None = None) -> list[Array]:
        """The outputs in the manifest's order."""
        outputs: list[Array] = self.runtime.run(self.output_names, feeds, options)
        return outputs


def choose_device(choice: DeviceChoice, threads: int) -> Device:
    """The device that was asked for, and one pool of so many threads for all sessions.

    The pool comes first: without one no session opens, be it one that only looks for CUDA.

    Raises:
        DeviceError: `cuda` where it does not come up; it is never silently the CPU.
    """
    _share_threads(threads)
    if choice == "cpu":
        return ON_CPU
    obstacle = _cuda_obstacle()
    if obstacle is None:
        return ON_CUDA
    if choice == "cuda":
        raise DeviceError(f"device: expected cuda, got none: {obstacle}")
    return ON_CPU


def _share_threads(threads: int) -> None:
    with suppress(Exception):  # the pool is the process's: whoever came first has sized it
        ort.set_global_thread_pool_sizes(threads, 1)


def open_sessions(bundle: Bundle, device: Device) -> dict[str, Session]:
    """A warm session for each task of the bundle.

    Raises:
        BundleError: a graph that does not load, does not fit the manifest, or does not run.
    """
    return {
        task: _open(bundle, task, graph, device) for task, graph in bundle.manifest.tasks.items()
    }


def open_session(graph: Path) -> ort.InferenceSession:
    """A session on the CPU with threads of its own, for one graph after another.

    Which settings suit which task was measured: docs/decisions/0006. Raises BundleError.
    """
    options = ort.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = options.enable_mem_pattern = graph.stem not in _FRUGAL
    return _open_graph(graph, options, [CPU])


def open_single_thread_session(graph: Path) -> ort.InferenceSession:
    """A session on the CPU of which every run takes one thread. Raises BundleError."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # The arena may stay on: it keeps what the largest batch takes, and batches are bounded.
    return _open_graph(graph, options, [CPU])


def _open(bundle: Bundle, task: str, graph: Graph, device: Device) -> Session:
    path, providers = bundle.file(graph.file), device.providers_of(task)
    try:
        runtime = _open_graph(path, _shared_pool_options(), providers)
        session = Session(task, graph, runtime, on_cpu=providers == (CPU,))
        _expect_ports(session)
        session.run({port.name: _warm_up(port) for port in graph.inputs})
    except BundleError:
        raise
    except Exception as error:
        raise _not_running(path, error) from None
    return session


def _open_graph(
    path: Path, options: ort.SessionOptions, providers: Sequence[Any]
) -> ort.InferenceSession:
    options.add_session_config_entry("session.disable_prepacking", "1")  # weights stay mapped
    options.log_severity_level = 4  # an error is raised, too, and reported by its handler
    try:
        return ort.InferenceSession(str(path), options, providers=list(providers))
    except Exception as error:
        raise _not_running(path, error) from None


def _not_running(path: Path, error: Exception) -> BundleError:
    reason = str(error).splitlines()[0]
    return BundleError(f"{path}: expected a graph that runs, got: {reason}")


def _shared_pool_options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.use_per_session_threads = False
    # An arena keeps the largest batch it ever saw, a memory pattern plans for two of each block.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    return options


def _expect_ports(session: Session) -> None:
    graph, runtime = session.graph, session.runtime
    inputs, outputs = runtime.get_inputs(), runtime.get_outputs()
    for declared, real in ((graph.inputs, inputs), (graph.outputs, outputs)):
        wanted = sorted(port.name for port in declared)
        got = sorted(port.name for port in real)
        if wanted != got:
            raise BundleError(f"{graph.file}: expected {wanted}, got {got}")


def _warm_up(port: Port) -> Array:
    """Values that any graph takes: one row, one pair, and one of whatever is counted."""
    shape = [size if isinstance(size, int) else 1 for size in port.shape]
    fill = {"k": 1, "noise": 0.5}.get(port.name, 0)
    return np.full(shape, fill, dtype=port.dtype)


def _cuda_obstacle() -> str | None:
    """Why CUDA cannot be used, or None if it can."""
    if CUDA not in ort.get_available_providers():
        return "this onnxruntime is built without it (the extra `service-cuda` brings one)"
    with suppress(Exception):
        ort.preload_dlls()
    try:
        got = _probe()
    except Exception as error:
        return str(error).splitlines()[0]
    return None if CUDA in got else "its libraries or its driver do not load"


def _probe() -> list[str]:
    """The execution providers that a session on CUDA really gets."""
    options = _shared_pool_options()
    options.log_severity_level = 3
    session = ort.InferenceSession(_PROBE, options, list(ON_CUDA.providers))
    got: list[str] = session.get_providers()
    return got
