"""The native kernels: a small C library that computes from the weights where they lie mapped.

ONNX Runtime copies a block of weights before it multiplies it, or passes over all of them. The
kernels read the mapped file itself, so they need no graph of their own, and a bundle gains without
a new export. Each row has the same result, to the bit, alone and in any batch. Where the library is
missing (no compiler at installation, or another CPU) and for all other tasks, ONNX Runtime runs the
bundle's graphs, which have the same results up to rounding. docs/decisions/0032 says why.
"""

from collections.abc import Mapping
from typing import Any

from hsoftmax.models.arrays import Array
from hsoftmax.models.hierarchical_softmax import INNER_ROWS

from .adaptive import AdaptiveTargetLogProb, AdaptiveTopK
from .inner_nodes import InnerNodesTargetLogProb
from .kernel import FreeThreads, Kernel, StopFlag
from .levels import LevelsSample, LevelsTargetLogProb, LevelsTopK
from .library import NativeError, NativeLibrary, load_library
from .text import TextArrays, TextKernel
from .tree import TreeTargetLogProb, TreeTopK

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
    ("AdaptiveSoftmax", "target_log_prob"),
    ("AdaptiveSoftmax", "top_k"),
    ("HierarchicalSoftmax", "sample"),
    ("HierarchicalSoftmax", "target_log_prob"),
    ("HierarchicalSoftmax", "top_k"),
    ("HuffmanSoftmax", "target_log_prob"),
    ("HuffmanSoftmax", "top_k"),
}


def has_kernel(family: str, task: str) -> bool:
    """Return True if a native kernel computes this task of this family."""
    return (family, task) in _KERNELS


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
    match family, task:
        case "AdaptiveSoftmax", "top_k":
            return AdaptiveTopK(library, tensors, attributes["cutoffs"], threads)
        case "AdaptiveSoftmax", _:
            return AdaptiveTargetLogProb(library, tensors, attributes["cutoffs"], threads)
        case "HuffmanSoftmax", "top_k":
            return TreeTopK(library, tensors, attributes["compat"])
        case "HuffmanSoftmax", _:
            return TreeTargetLogProb(library, tensors, attributes["compat"])
        case _, "sample":
            return LevelsSample(
                library, tensors, num_targets=attributes["num_targets"], threads=threads
            )
        case _, "top_k":
            return LevelsTopK(library, tensors, num_targets=attributes["num_targets"])
        case _:
            kernel = InnerNodesTargetLogProb if INNER_ROWS in tensors else LevelsTargetLogProb
            return kernel(library, tensors, num_targets=attributes["num_targets"], threads=threads)
