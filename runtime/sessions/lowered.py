"""Opens the graphs for CUDA of a bundle, and copies its weights to the device."""

import math
from collections.abc import Mapping
from pathlib import Path

import onnxruntime as ort

from hsoftmax import models
from hsoftmax.bundle import CUDA_LOWERING, Bundle, BundleError, load_tensors
from hsoftmax.runtime.cuda import (
    MAX_BYTES,
    SUFFIX,
    DeviceType,
    LoweredTask,
    Steps,
    lowered_files,
    open_lowered_tasks,
)
from hsoftmax.runtime.devices import CPU, Device, is_out_of_memory

from .graph_file import OutOfDeviceMemory, open_graph_on, open_session, reserve_weights
from .thread_pool import shared_pool_options

_FLOAT_BYTES = 4


def open_lowered(
    bundle: Bundle, device: Device | None = None, *, max_bytes: int = MAX_BYTES
) -> dict[str, LoweredTask]:
    """Open the tasks for which the bundle has a graph for CUDA: on the device, or on the CPU.

    With a bound of the device's memory, half of the part for runs is planned for each run; the rest
    is for its inputs, its outputs and gaps between them.

    Raises:
        OutOfDeviceMemory: weights that do not fit the device.
        BundleError: a graph that does not load.
    """
    manifest = bundle.manifest
    tasks = [task for task, graph in manifest.tasks.items() if CUDA_LOWERING in graph.lowerings]
    if not tasks:
        return {}
    sessions = {
        file.removesuffix(SUFFIX): _open_step(bundle.file(file), device)
        for file in lowered_files(manifest.files)
    }
    steps = _steps(sessions, device, max_bytes)
    tensors = load_tensors(bundle)
    model = models.from_tensors(manifest.family, tensors, manifest.attributes)
    size = sum(math.prod(tensor.shape) for tensor in manifest.tensors) * _FLOAT_BYTES
    if device is not None and device.memory is not None:
        reserve_weights(bundle.path, device.memory, size, steps)
    try:
        lowered = open_lowered_tasks(model, tensors, steps)
    except Exception as error:
        reason = str(error).splitlines()[0]
        kind = OutOfDeviceMemory if is_out_of_memory(error) else BundleError
        raise kind(
            f"{bundle.path}: expected room for about {size:,} bytes of float32 weights on the "
            f"device, got: {reason}: serve it with --device cpu"
        ) from None
    return {task: lowered[task] for task in tasks}


def _steps(
    sessions: Mapping[str, ort.InferenceSession], device: Device | None, max_bytes: int
) -> Steps:
    if device is None:
        return Steps(sessions, "cpu", max_bytes)
    if device.memory is not None:
        max_bytes = min(max_bytes, device.memory.run_bytes // 2)
    place: DeviceType = "cpu" if device.providers == (CPU,) else "cuda"
    return Steps(sessions, place, max_bytes, lock=device.lock)


def _open_step(path: Path, device: Device | None) -> ort.InferenceSession:
    if device is None:
        return open_session(path)
    return open_graph_on(device, path, shared_pool_options())
