"""What a device is. It imports no library, so that settings and help can name the choices."""

from dataclasses import dataclass
from typing import Any, Literal

from hsoftmax.models.errors import UserError

DeviceChoice = Literal["auto", "cpu", "cuda"]

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"

# All other tasks go from block to block by what they have found, which may go wrong on CUDA:
# docs/decisions/0026.
DENSE = frozenset({"log_probs", "cluster_log_probs"})


class DeviceError(UserError):
    """A device that was asked for and is not there."""


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


ON_CPU = Device("cpu", (CPU,))
# TF32 rounds products to 10 bits, about 1e-3 in a log-probability; an arena that doubles takes up
# to twice the memory that is needed.
_SETTINGS = {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}
ON_CUDA = Device("cuda", ((CUDA, _SETTINGS), CPU))
