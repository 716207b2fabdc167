"""Opens the graphs for CUDA of a bundle, and copies its weights to the device."""

import math
from pathlib import Path

import onnxruntime as ort

from hsoftmax import models
from hsoftmax.bundle import CUDA_LOWERING, Bundle, BundleError, load_tensors
from hsoftmax.runtime.cuda import (
    MAX_BYTES,
    SUFFIX,
    LoweredTask,
    Steps,
    lowered_files,
    open_lowered_tasks,
)
from hsoftmax.runtime.devices import CPU, Device

from .graph_file import open_graph, open_session
from .thread_pool import shared_pool_options


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
    return open_graph(path, shared_pool_options(), device.providers)
