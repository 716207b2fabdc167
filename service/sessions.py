"""ONNX Runtime sessions: which device, with which options, warmed up.

Options live here and nowhere else. Prepacking is off: it would copy the weights of every dense
product out of the mapped file into each process.
"""

from base64 import b64decode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import onnxruntime as ort

from bundle import Bundle, BundleError, Graph, Port
from models.arrays import Array

from .errors import StartError
from .settings import DeviceChoice

Feeds = Mapping[str, Array]
CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"

# y = Identity(x), float: the smallest graph that shows whether CUDA really comes up.
_PROBE = b64decode("CAo6LwoQCgF4EgF5IghJZGVudGl0eRIBZ1oLCgF4EgYKBAgBEgBiCwoBeRIGCgQIARIAQgQKABAV")


# All other tasks go from block to block by what they have found, which may go wrong on CUDA:
# docs/decisions/0026.
DENSE = frozenset({"log_probs", "cluster_log_probs"})


@dataclass(frozen=True)
class Device:
    """Where graphs run, and the execution providers that say so to ONNX Runtime.

    Attributes:
        providers: of dense tasks; all others run on the CPU
    """

    name: Literal["cpu", "cuda"]
    providers: tuple[Any, ...]

    def providers_of(self, task: str) -> tuple[Any, ...]:
        """In the order in which ONNX Runtime is to try them."""
        return self.providers if task in DENSE else (CPU,)


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


ON_CPU = Device("cpu", (CPU,))
# TF32 rounds products to 10 bits, about 1e-3 in a log-probability; an arena that doubles takes up
# to twice the memory that is needed.
_SETTINGS = {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}
ON_CUDA = Device("cuda", ((CUDA, _SETTINGS), CPU))


def choose_device(choice: DeviceChoice, threads: int) -> Device:
    """The device that was asked for, and one pool of so many threads for all sessions.

    The pool comes first: without one no session opens, be it one that only looks for CUDA.

    Raises:
        StartError: `cuda` where it does not come up; it is never silently the CPU.
    """
    _share_threads(threads)
    if choice == "cpu":
        return ON_CPU
    obstacle = _cuda_obstacle()
    if obstacle is None:
        return ON_CUDA
    if choice == "cuda":
        raise StartError(f"device: expected cuda, got none: {obstacle}")
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


def _open(bundle: Bundle, task: str, graph: Graph, device: Device) -> Session:
    path, providers = bundle.file(graph.file), device.providers_of(task)
    try:
        runtime = ort.InferenceSession(
            str(path), sess_options=_options(), providers=list(providers)
        )
        session = Session(task, graph, runtime, on_cpu=providers == (CPU,))
        _expect_ports(session)
        session.run({port.name: _warm_up(port) for port in graph.inputs})
    except BundleError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise BundleError(f"{path}: expected a graph that runs, got: {reason}") from None
    return session


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.use_per_session_threads = False
    options.log_severity_level = 3
    # An arena keeps the largest batch it ever saw, a memory pattern plans for two of each block.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.disable_prepacking", "1")
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
        got = ort.InferenceSession(_PROBE, _options(), list(ON_CUDA.providers)).get_providers()
    except Exception as error:
        return str(error).splitlines()[0]
    return None if CUDA in got else "its libraries or its driver do not load"
