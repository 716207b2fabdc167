"""Opens one graph with ONNX Runtime: the one place that does.

Prepacking is off for the graphs of tasks: it would copy the weights of every dense product out of
the mapped file into each process. It is on for encoders, whose products are small beside a head and
take 10 to 30% less time with it; the table of an embedding stays mapped.
"""

from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from hsoftmax.bundle import WEIGHTS, BundleError
from hsoftmax.models.arrays import Array
from hsoftmax.runtime.device_memory import DeviceMemory, DeviceMemoryError
from hsoftmax.runtime.devices import CPU, Device, is_out_of_memory

from .arena import use_shared_arena
from .thread_pool import has_thread_pool, shared_pool_options

# y = Identity(x), float: the smallest graph that tests a device.
_IDENTITY_GRAPH = b64decode(
    "CAo6LwoQCgF4EgF5IghJZGVudGl0eRIBZ1oLCgF4EgYKBAgBEgBiCwoBeRIGCgQIARIAQgQKABAV"
)
_FROM_MEMORY = "add_external_initializers_from_files_in_memory"  # 1.32 has it, 1.23 does not
_TASKS_WITHOUT_ARENA = {"target_log_prob"}  # they need less memory without it


class OutOfDeviceMemory(BundleError):
    """The bundle needs more memory than the device has, or than it may use."""


def open_session(graph: Path) -> ort.InferenceSession:
    """Open a CPU session with its own threads, for running one graph at a time.

    In a process that serves it uses the threads of the service.

    The settings per task were measured: docs/decisions/0006.

    Raises:
        BundleError: a graph that does not load.
    """
    options = ort.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.use_per_session_threads = not has_thread_pool()
    options.enable_cpu_mem_arena = options.enable_mem_pattern = (
        graph.stem not in _TASKS_WITHOUT_ARENA
    )
    return open_graph(graph, options, [CPU])


def open_graph(
    path: Path,
    options: ort.SessionOptions,
    providers: Sequence[Any],
    *,
    weights: str | None = WEIGHTS,
    prepacking: bool = False,
) -> ort.InferenceSession:
    """Open a graph and the file of its weights.

    Raises:
        BundleError: a graph that does not load.
    """
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
        raise graph_error(path, error) from None


def open_graph_on(
    device: Device,
    path: Path,
    options: ort.SessionOptions,
    *,
    weights: str | None = WEIGHTS,
    prepacking: bool = False,
) -> ort.InferenceSession:
    """Open a graph on a device that is not the CPU, within its bound of memory.

    Raises:
        OutOfDeviceMemory: its weights do not fit the device.
        BundleError: a graph that does not load.
    """
    if device.memory is not None:
        use_shared_arena(options)
    return open_graph(path, options, device.providers, weights=weights, prepacking=prepacking)


def reserve_weights(path: Path, memory: DeviceMemory, num_bytes: int, owner: object) -> None:
    """Reserve memory of the device for weights. Raises OutOfDeviceMemory."""
    try:
        memory.reserve(num_bytes, owner)
    except DeviceMemoryError as error:
        raise OutOfDeviceMemory(f"{path}: {error}") from None


def graph_error(path: Path, error: Exception) -> BundleError:
    """Return the error of a graph that does not load or run."""
    reason = str(error).splitlines()[0]
    if is_out_of_memory(error):
        return OutOfDeviceMemory(
            f"{path}: expected room on the device, got: {reason}: serve it with --device cpu"
        )
    return BundleError(f"{path}: expected a graph that runs, got: {reason}")


def opened_providers(providers: Sequence[Any]) -> list[str]:
    """Return the execution providers that a session of these actually gets."""
    options = shared_pool_options()
    options.log_severity_level = 3
    session = ort.InferenceSession(_IDENTITY_GRAPH, options, list(providers))
    opened: list[str] = session.get_providers()
    return opened


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
