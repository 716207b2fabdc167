"""Opens the sessions of a bundle's tasks, runs each once, and adds native kernels."""

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np
import onnxruntime as ort

from hsoftmax.bundle import CUDA_LOWERING, WEIGHTS, Bundle, BundleError, Graph, Port, load_tensors
from hsoftmax.models.arrays import Array
from hsoftmax.runtime.cuda import SUFFIX, LoweredTask
from hsoftmax.runtime.device_runs import MAX_ELEMENTS, DeviceRuns, max_elements_within
from hsoftmax.runtime.devices import CPU, Device
from hsoftmax.runtime.native import (
    FreeThreads,
    Kernel,
    NativeError,
    has_kernel,
    load_library,
    open_kernel,
)
from hsoftmax.runtime.weights_guard import WeightsGuard

from .graph_file import graph_error, open_graph, open_graph_on, reserve_weights
from .lowered import open_lowered
from .session import Feeds, Session, expect_ports
from .thread_pool import shared_pool_options, use_single_thread


def open_sessions(bundle: Bundle, device: Device) -> dict[str, Session]:
    """Open a session for each task of the bundle and run it once.

    Raises:
        OutOfDeviceMemory: weights or the first run do not fit the device.
        BundleError: a graph that does not load, does not fit the manifest, or does not run.
    """
    guard = WeightsGuard(bundle.file(WEIGHTS)) if WEIGHTS in bundle.manifest.files else None
    lowered = open_lowered(bundle, device) if device.name == "cuda" else {}
    return {
        task: _open_lowered_task(bundle, task, lowered[task], guard)
        if task in lowered
        else _open_task(bundle, task, graph, device, guard)
        for task, graph in bundle.manifest.tasks.items()
    }


def open_single_thread_session(bundle: Bundle, task: str, *, native: bool) -> Session:
    """Open a CPU session of a task in which every run uses one thread.

    Raises:
        BundleError: a graph that does not load, or tensors that do not fit the native kernel.
    """
    options = ort.SessionOptions()
    use_single_thread(options)
    # The arena may stay on: it keeps the memory of the largest batch, and batches are bounded.
    graph = bundle.manifest.tasks[task]
    runtime = open_graph(bundle.file(graph.file), options, [CPU])
    return Session(task, graph, runtime, kernel=_kernel(bundle, task) if native else None)


def _open_task(
    bundle: Bundle, task: str, graph: Graph, device: Device, weights: WeightsGuard | None
) -> Session:
    path = bundle.file(graph.file)
    minimal = {port.name: _minimal_input(port) for port in graph.inputs}
    try:
        if device.providers_of(task) == (CPU,):
            runtime = open_graph(path, shared_pool_options(), [CPU])
            session = Session(task, graph, runtime, weights=weights)
        else:
            session = _open_dense_task(bundle, task, graph, device, weights)
        expect_ports(session)
        session.run(minimal)
        if device.instruction_set and session.on_cpu:
            kernel = _kernel(bundle, task, _free_threads(device.threads))
            session = replace(session, kernel=kernel)
        if session.kernel is not None:
            session.run(_with_one_block(minimal))
    except BundleError:
        raise
    except Exception as error:
        raise graph_error(path, error) from None
    return session


def _open_dense_task(
    bundle: Bundle, task: str, graph: Graph, device: Device, weights: WeightsGuard | None
) -> Session:
    """Open the portable graph of a dense task on a device that is not the CPU."""
    path = bundle.file(graph.file)
    runtime = open_graph_on(device, path, shared_pool_options())
    max_elements = MAX_ELEMENTS
    if device.memory is not None:
        reserve_weights(bundle.path, device.memory, _weight_bytes(bundle, task), runtime)
        max_elements = max_elements_within(device.memory.run_bytes)
    runs = DeviceRuns(runtime, _row_elements(bundle, graph), max_elements, device.lock)
    return Session(task, graph, runtime, on_cpu=False, weights=weights, device_runs=runs)


def _weight_bytes(bundle: Bundle, task: str) -> int:
    """Return about how many bytes of weights a portable graph of a dense task has.

    The graph of clusters has those of the first level alone, the other one has all.
    """
    manifest = bundle.manifest
    total = sum(tensor.num_bytes for tensor in manifest.tensors)
    if task != "cluster_log_probs":
        return total
    row_bytes = ((manifest.hidden_size or 0) + 1) * 4
    return min(total, (manifest.num_clusters or 0) * row_bytes)


def _row_elements(bundle: Bundle, graph: Graph) -> int:
    """Return a bound of the elements of any tensor for one row, or 0 if inputs cannot be sliced.

    A dense task computes a number for each row of a level, and a level has a tensor of one number
    for each. Outputs may have more, or such a tensor may be missing.
    """
    if any(port.shape[:1] != ("batch",) for port in graph.inputs):
        return 0
    outputs = (math.prod(_static_sizes(port)) for port in graph.outputs)
    vectors = (t.shape[0] for t in bundle.manifest.tensors if len(t.shape) == 1)
    return max((*outputs, *vectors), default=0)


def _static_sizes(port: Port) -> list[int]:
    return [size for size in port.shape if isinstance(size, int)]


def _open_lowered_task(
    bundle: Bundle, task: str, lowered: LoweredTask, weights: WeightsGuard | None
) -> Session:
    """Return the session of a task that the bundle's graphs for CUDA compute, after one run."""
    graph = bundle.manifest.tasks[task]
    file = graph.lowerings[CUDA_LOWERING]
    runtime = lowered.steps.sessions[file.removesuffix(SUFFIX)]
    session = Session(task, graph, runtime, on_cpu=False, weights=weights, lowered=lowered)
    try:
        session.run({port.name: _minimal_input(port) for port in graph.inputs})
    except Exception as error:
        raise graph_error(bundle.file(file), error) from None
    return session


@lru_cache(maxsize=1)
def _free_threads(count: int) -> FreeThreads:
    """Return the threads of native kernels, which all sessions of the process share."""
    return FreeThreads(count)


def _kernel(bundle: Bundle, task: str, threads: FreeThreads | None = None) -> Kernel | None:
    """Return the native kernel of a task, if there is one. Raises BundleError."""
    library = load_library()
    manifest = bundle.manifest
    if isinstance(library, str) or not has_kernel(manifest.family, task):
        return None
    try:
        tensors = load_tensors(bundle)
        return open_kernel(library, manifest.family, task, tensors, manifest.attributes, threads)
    except NativeError as error:
        raise BundleError(f"{bundle.path}: {error}") from None


def _minimal_input(port: Port) -> Array:
    """Return the smallest valid input: one row, one pair, one for each count."""
    shape = [size if isinstance(size, int) else 1 for size in port.shape]
    fill = {"k": 1, "noise": 0.5}.get(port.name, 0)
    return np.full(shape, fill, dtype=port.dtype)


def _with_one_block(minimal: Feeds) -> Feeds:
    """Limit a search to one block: that of the graph has read all weights already."""
    return {name: np.ones_like(a) if name == "max_blocks" else a for name, a in minimal.items()}
