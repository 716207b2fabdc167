"""The native kernels: a small C library that computes from the weights where they lie mapped.

ONNX Runtime copies a block of weights before it multiplies it, or passes over all of them. The
kernels read the mapped file itself, so they need no graph of their own, and a bundle gains without
a new export. Each row has the same result, to the bit, alone and in any batch. Where the library is
missing (no compiler at installation, or another CPU) and for all other tasks, ONNX Runtime runs the
bundle's graphs, which have the same results up to rounding. docs/decisions/0032 says why.
"""

from collections.abc import Callable, Mapping
from typing import Any

from hsoftmax.models.arrays import Array
from hsoftmax.models.hierarchical_softmax import INNER_ROWS

from .adaptive import adaptive_model
from .inner_nodes import InnerNodesKernel
from .kernel import FreeThreads, Kernel, StopFlag
from .levels import levels_model
from .library import NativeError, NativeLibrary, load_library
from .model import NativeModel
from .task_kernels import SampleKernel, TargetLogProbKernel, TopKKernel
from .text import TextArrays, TextKernel
from .tree import tree_model

__all__ = [
    "FreeThreads",
    "Kernel",
    "NativeError",
    "NativeLibrary",
    "StopFlag",
    "TextArrays",
    "TextKernel",
    "has_kernel",
    "load_library",
    "open_kernel",
]

_KERNELS = {
    "AdaptiveSoftmax": {"target_log_prob", "top_k", "sample"},
    "HierarchicalSoftmax": {"target_log_prob", "top_k", "sample"},
    "HuffmanSoftmax": {"target_log_prob", "top_k"},
}
_TASKS: Mapping[str, Callable[..., Kernel]] = {
    "target_log_prob": TargetLogProbKernel,
    "top_k": TopKKernel,
    "sample": SampleKernel,
}


def has_kernel(family: str, task: str) -> bool:
    """Return True if a native kernel computes this task of this family."""
    return task in _KERNELS.get(family, ())


def open_kernel(
    library: NativeLibrary,
    family: str,
    task: str,
    tensors: Mapping[str, Array],
    attributes: Mapping[str, Any],
    threads: FreeThreads | None = None,
) -> Kernel:
    """Build the kernel of a task that `has_kernel` knows, from a bundle's tensors and attributes.

    Without `threads`, each run uses its caller's thread alone.

    Raises:
        NativeError: tensors that do not fit each other.
    """
    if task == "target_log_prob" and INNER_ROWS in tensors:
        return InnerNodesKernel(library, tensors, attributes["num_targets"], threads)
    model = _describe(library, family, tensors, attributes)
    return _TASKS[task](library, model, threads)


def _describe(
    library: NativeLibrary,
    family: str,
    tensors: Mapping[str, Array],
    attributes: Mapping[str, Any],
) -> NativeModel:
    """Describe a model to the library. Raises NativeError."""
    match family:
        case "AdaptiveSoftmax":
            return adaptive_model(library, tensors, attributes["cutoffs"])
        case "HuffmanSoftmax":
            return tree_model(library, tensors, attributes["compat"])
        case _:
            return levels_model(library, tensors, attributes["num_targets"])
