"""Devices and their ONNX Runtime execution providers.

The module imports no library, so that settings and command-line help can name the choices.
"""

import re
from dataclasses import dataclass
from typing import Any, Literal

from hsoftmax.models.errors import UserError

DeviceChoice = Literal["auto", "cpu", "cuda"]

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"

# Only these tasks run on CUDA. The others choose blocks by intermediate results, which may go wrong
# on CUDA: docs/decisions/0026.
DENSE_TASKS = frozenset({"log_probs", "cluster_log_probs"})


class DeviceError(UserError):
    """The requested device is not available."""


class DeviceLost(Exception):
    """The device failed in a way from which this process cannot recover."""


# A failure of CUDA or cuBLAS, by number. After most of them each later call fails, too.
_CUDA_FAILURE = re.compile(r"\b(CUDA|CUBLAS) (?:failure|error) (\d+)", re.IGNORECASE)
_OUT_OF_MEMORY = {("CUDA", "2"), ("CUBLAS", "3")}


def is_device_loss(error: BaseException) -> bool:
    """Return True if ONNX Runtime raised the error because the device failed.

    Too little memory for one run is no loss: smaller runs still succeed.
    """
    found = _CUDA_FAILURE.search(str(error))
    return found is not None and (found[1].upper(), found[2]) not in _OUT_OF_MEMORY


@dataclass(frozen=True)
class Device:
    """A device, and the ONNX Runtime execution providers that use it.

    Attributes:
        providers: execution providers of dense tasks; all other tasks run on the CPU
        instruction_set: of the native kernels, which compute the tasks on the CPU that they
            support; empty if they are not used
        threads: that all runs of native kernels use at once at most
    """

    name: Literal["cpu", "cuda"]
    providers: tuple[Any, ...]
    instruction_set: str = ""
    threads: int = 1

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
