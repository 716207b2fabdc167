"""Devices and their ONNX Runtime execution providers.

The module imports no library, so that settings and command-line help can name the choices.
"""

import re
import threading
from dataclasses import dataclass, field
from typing import Any, Literal

from hsoftmax.models.errors import UserError

from .device_memory import DeviceMemory

DeviceChoice = Literal["auto", "cpu", "cuda"]
FallbackCause = Literal["cuda_unavailable", "out_of_memory"]

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"

# Only these tasks run on CUDA. The others choose blocks by intermediate results, which may go wrong
# on CUDA: docs/decisions/0026.
DENSE_TASKS = frozenset({"log_probs", "cluster_log_probs"})


class DeviceError(UserError):
    """The requested device is not available."""


class DeviceLost(Exception):
    """The device failed in a way from which this process cannot recover."""


class DeviceOutOfMemory(Exception):
    """The device has too little memory for one run. Smaller runs still succeed."""


# A failure of CUDA or cuBLAS, by number. After most of them each later call fails, too.
_CUDA_FAILURE = re.compile(r"\b(CUDA|CUBLAS) (?:failure|error) (\d+)", re.IGNORECASE)
_OUT_OF_MEMORY = {("CUDA", "2"), ("CUBLAS", "3")}
# Sentences of ONNX Runtime's arena: the device has no more memory, or the arena's limit is reached.
_ALLOCATION_FAILURE = re.compile(
    r"Failed to allocate memory for requested buffer|"
    r"Available memory of \d+ is smaller than requested bytes"
)


def is_device_loss(error: BaseException) -> bool:
    """Return True if ONNX Runtime raised the error because the device failed.

    Too little memory for one run is no loss: smaller runs still succeed.
    """
    found = _CUDA_FAILURE.search(str(error))
    return found is not None and (found[1].upper(), found[2]) not in _OUT_OF_MEMORY


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if ONNX Runtime raised the error because memory does not suffice."""
    found = _CUDA_FAILURE.search(str(error))
    if found is not None:
        return (found[1].upper(), found[2]) in _OUT_OF_MEMORY
    return _ALLOCATION_FAILURE.search(str(error)) is not None


@dataclass(frozen=True)
class Device:
    """A device, and the ONNX Runtime execution providers that use it.

    Attributes:
        providers: execution providers of dense tasks; all other tasks run on the CPU
        instruction_set: of the native kernels, which compute the tasks on the CPU that they
            support; empty if they are not used
        threads: that all runs of native kernels use at once at most
        memory: bound of the device's memory; None without one
        lock: held by the session that runs on the device; one at a time does
        fallback: the CPU, for bundles that do not fit the device; None if it was not allowed
        fallback_cause, fallback_reason: why this is the CPU in place of a device, for clients and
            for the log; None and empty if it is not
    """

    name: Literal["cpu", "cuda"]
    providers: tuple[Any, ...]
    instruction_set: str = ""
    threads: int = 1
    memory: DeviceMemory | None = field(default=None, compare=False)
    lock: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)
    fallback: "Device | None" = field(default=None, compare=False)
    fallback_cause: FallbackCause | None = None
    fallback_reason: str = ""

    @property
    def description(self) -> str:
        """Return the name, and the native kernels if they are used."""
        native = f", native kernels with {self.instruction_set}"
        return self.name + (native if self.instruction_set else "")

    def providers_of(self, task: str) -> tuple[Any, ...]:
        """Return the execution providers for a task, in order of preference."""
        return self.providers if task in DENSE_TASKS else (CPU,)


ON_CPU = Device("cpu", (CPU,))
# TF32 rounds products to 10 bits, which costs about 1e-3 in a log-probability. An arena that grows
# by doubling takes up to twice the memory that it needs.
_CUDA_OPTIONS = {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}
ON_CUDA = Device("cuda", ((CUDA, _CUDA_OPTIONS), CPU))
