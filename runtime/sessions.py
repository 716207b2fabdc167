"""Opens ONNX Runtime sessions, with the options that each caller needs.

    open_sessions               the service: one thread pool for all sessions of the process
    open_session                verification and benchmarks: a thread pool per session
    open_lowered                the graphs for CUDA, on the device or, for verification, on the CPU
    open_single_thread_session  batch scoring on the command line: several runs in parallel
    open_encoder_session        the encoder of a bundle, in the service and for one run at a time

`open_sessions` and `open_single_thread_session` add the native kernel of a task that has one.

Prepacking is off for the graphs of tasks: it would copy the weights of every dense product out of
the mapped file into each process. It is on for encoders, whose products are small beside a head and
take 10 to 30% less time with it; the table of an embedding stays mapped.
"""

import math
from base64 import b64decode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from hsoftmax import models
from hsoftmax.bundle import CUDA_LOWERING, WEIGHTS, Bundle, BundleError, Graph, Port, load_tensors
from hsoftmax.models.arrays import Array

from .choices import NativeChoice
from .cuda import MAX_BYTES, SUFFIX, LoweredTask, Steps, lowered_files, open_lowered_tasks
from .device_runs import DeviceRuns
from .devices import (
    CPU,
    CUDA,
    ON_CPU,
    ON_CUDA,
    Device,
    DeviceChoice,
    DeviceError,
    DeviceLost,
    is_device_loss,
)
from .native import (
    FreeThreads,
    Kernel,
    NativeError,
    NativeLibrary,
    StopFlag,
    has_kernel,
    load_library,
    open_kernel,
)
from .weights_guard import WeightsGuard

Feeds = Mapping[str, Array]
InputOrOutput = ort.NodeArg  # with its `name`, `type` and `shape`

# y = Identity(x), float: the smallest graph that tests CUDA.
_IDENTITY_GRAPH = b64decode(
    "CAo6LwoQCgF4EgF5IghJZGVudGl0eRIBZ1oLCgF4EgYKBAgBEgBiCwoBeRIGCgQIARIAQgQKABAV"
)
ENCODER = "encoder"  # the task of an encoder's session
_FROM_MEMORY = "add_external_initializers_from_files_in_memory"  # 1.32 has it, 1.23 does not
_TASKS_WITHOUT_ARENA = {"target_log_prob"}  # they need less memory without it


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
            raise


def choose_device(choice: DeviceChoice, threads: int, native: NativeChoice = "auto") -> Device:
    """Return the requested device, and create the process's pool of `threads` threads.

    The pool is created first because no session opens without it, not even the test for CUDA.

    Raises:
        DeviceError: `cuda` or native kernels were requested but do not work; nothing replaces them
            silently.
    """
    _create_thread_pool(threads)
    device = ON_CPU
    if choice != "cpu":
        problem = _cuda_problem()
        if problem is None:
            device = ON_CUDA
        elif choice == "cuda":
            raise DeviceError(f"device: expected cuda, got none: {problem}")
    library = choose_native(native)
    instruction_set = library.instruction_set if library else ""
    return replace(device, instruction_set=instruction_set, threads=threads)


def choose_native(choice: NativeChoice) -> NativeLibrary | None:
    """Return the native library if it is to be used. Raises DeviceError if `on` cannot be had."""
    library = load_library() if choice != "off" else "they are off"
    if choice == "on" and isinstance(library, str):
        raise DeviceError(f"native: expected the native library, got none: {library}")
    return library if isinstance(library, NativeLibrary) else None


@lru_cache(maxsize=1)
def _create_thread_pool(threads: int) -> None:
    """Create the pool of the process, once; its first caller sets the size."""
    with suppress(Exception):
        ort.set_global_thread_pool_sizes(threads, 1)


def _has_thread_pool() -> bool:
    """Return True if this process has a pool. Then no session may have threads of its own."""
    return _create_thread_pool.cache_info().currsize > 0


def open_sessions(bundle: Bundle, device: Device) -> dict[str, Session]:
    """Open a session for each task of the bundle and run it once.

    Raises:
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


def open_lowered(
    bundle: Bundle, device: Device | None = None, *, max_bytes: int = MAX_BYTES
) -> dict[str, LoweredTask]:
    """Open the tasks for which the bundle has a graph for CUDA: on the device, or on the CPU.

    Raises:
        BundleError: a graph that does not load, or weights that do not fit the device.
    """
    manifest = bundle.manifest
    tasks = [task for task, graph in manifest.tasks.items() if CUDA_LOWERING in graph.lowerings]
    if not tasks:
        return {}
    sessions = {
        file.removesuffix(SUFFIX): _open_step(bundle.file(file), device)
        for file in lowered_files(manifest)
    }
    is_cpu = device is None or device.providers == (CPU,)
    steps = Steps(sessions, "cpu" if is_cpu else "cuda", max_bytes)
    tensors = load_tensors(bundle)
    model = models.from_tensors(manifest.family, tensors, manifest.attributes)
    try:
        lowered = open_lowered_tasks(model, tensors, steps)
    except Exception as error:
        size = sum(math.prod(tensor.shape) for tensor in manifest.tensors) * 4
        raise BundleError(
            f"{bundle.path}: expected room for about {size:,} bytes of float32 weights on the "
            f"device, got: {str(error).splitlines()[0]}: serve it with --device cpu"
        ) from None
    return {task: lowered[task] for task in tasks}


def _open_step(path: Path, device: Device | None) -> ort.InferenceSession:
    if device is None:
        return open_session(path)
    return _open_graph(path, _shared_pool_options(), device.providers)


def open_session(graph: Path) -> ort.InferenceSession:
    """Open a CPU session with its own threads, for running one graph at a time.

    In a process that serves it uses the threads of the service.

    The settings per task were measured: docs/decisions/0006.

    Raises:
        BundleError: a graph that does not load.
    """
    options = ort.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.use_per_session_threads = not _has_thread_pool()
    options.enable_cpu_mem_arena = options.enable_mem_pattern = (
        graph.stem not in _TASKS_WITHOUT_ARENA
    )
    return _open_graph(graph, options, [CPU])


def open_single_thread_session(bundle: Bundle, task: str, *, native: bool) -> Session:
    """Open a CPU session of a task in which every run uses one thread.

    Raises:
        BundleError: a graph that does not load, or tensors that do not fit the native kernel.
    """
    options = ort.SessionOptions()
    options.use_per_session_threads = not _has_thread_pool()
    if options.use_per_session_threads:
        options.intra_op_num_threads = options.inter_op_num_threads = 1
    # The arena may stay on: it keeps the memory of the largest batch, and batches are bounded.
    graph = bundle.manifest.tasks[task]
    runtime = _open_graph(bundle.file(graph.file), options, [CPU])
    return Session(task, graph, runtime, kernel=_kernel(bundle, task) if native else None)


def open_encoder_session(bundle: Bundle, device: Device | None = None) -> Session:
    """Open the session of the bundle's encoder: on the device, or on the CPU, one thread a run.

    Raises:
        BundleError: the bundle has no encoder, or its graph does not load or fit the manifest.
    """
    encoder = bundle.manifest.encoder
    if encoder is None:
        raise BundleError(f"{bundle.path}: expected an encoder, got none")
    graph = Graph(file=encoder.file, inputs=encoder.inputs, outputs=encoder.outputs)
    guard = None if encoder.weights is None else WeightsGuard(bundle.file(encoder.weights))
    options = _shared_pool_options()
    options.use_per_session_threads = not _has_thread_pool()
    if options.use_per_session_threads:
        options.intra_op_num_threads = options.inter_op_num_threads = 1
    providers = (CPU,) if device is None else device.providers
    path = bundle.file(encoder.file)
    runtime = _open_graph(path, options, providers, weights=encoder.weights, prepacking=True)
    on_cpu = providers == (CPU,)
    runs = None if on_cpu else DeviceRuns(runtime)
    session = Session(ENCODER, graph, runtime, on_cpu=on_cpu, weights=guard, device_runs=runs)
    _expect_ports(session)
    return session


def _open_task(
    bundle: Bundle, task: str, graph: Graph, device: Device, weights: WeightsGuard | None
) -> Session:
    path, providers = bundle.file(graph.file), device.providers_of(task)
    minimal = {port.name: _minimal_input(port) for port in graph.inputs}
    try:
        runtime = _open_graph(path, _shared_pool_options(), providers)
        on_cpu = providers == (CPU,)
        runs = None if on_cpu else DeviceRuns(runtime, _row_elements(bundle, graph))
        session = Session(task, graph, runtime, on_cpu=on_cpu, weights=weights, device_runs=runs)
        _expect_ports(session)
        session.run(minimal)
        if device.instruction_set and session.on_cpu:
            kernel = _kernel(bundle, task, _free_threads(device.threads))
            session = replace(session, kernel=kernel)
        if session.kernel is not None:
            session.run(_with_one_block(minimal))
    except BundleError:
        raise
    except Exception as error:
        raise _graph_error(path, error) from None
    return session


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
        raise _graph_error(bundle.file(file), error) from None
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


def _open_graph(
    path: Path,
    options: ort.SessionOptions,
    providers: Sequence[Any],
    *,
    weights: str | None = WEIGHTS,
    prepacking: bool = False,
) -> ort.InferenceSession:
    if not prepacking:  # keeps the weights mapped
        options.add_session_config_entry("session.disable_prepacking", "1")
    options.log_severity_level = 4  # an error is also raised, and reported there
    if tuple(providers) != (CPU,):
        # A buffer that is used again may be freed too early where Shape and Reshape pass it
        # between CPU and CUDA: docs/decisions/0041.
        options.enable_mem_reuse = False
    linked_weights = _linked_weights(path, weights)  # the options only point to it
    try:
        if linked_weights is not None:
            options.add_external_initializers_from_files_in_memory(
                [weights], [linked_weights], [linked_weights.size]
            )
        return ort.InferenceSession(str(path), options, providers=list(providers))
    except Exception as error:
        raise _graph_error(path, error) from None


def _linked_weights(graph: Path, name: str | None) -> Array | None:
    """Return the mapped weights if ONNX Runtime would refuse to open them by their link, else None.

    It opens external data in the folder of the graph, and in the folder that the graph's own link
    leads to. Caches that keep each file in a folder of its own have links to neither. From memory
    it reads them into a copy of its own. Versions without that method follow every link.
    """
    if name is None or not hasattr(ort.SessionOptions, _FROM_MEMORY):
        return None
    weights = graph.with_name(name)
    folders = {graph.parent.resolve(), graph.resolve().parent}
    if not weights.is_file() or weights.resolve().parent in folders or not weights.stat().st_size:
        return None
    content: Array = np.memmap(weights, dtype=np.uint8, mode="r")
    return content


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


def _with_one_block(minimal: Feeds) -> Feeds:
    """Limit a search to one block: that of the graph has read all weights already."""
    return {name: np.ones_like(a) if name == "max_blocks" else a for name, a in minimal.items()}


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
