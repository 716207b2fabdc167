"""The memory of a device that `--gpu-memory` bounds: a part for runs, and the rest for weights.

Sessions draw the memory of runs from one arena of ONNX Runtime, which cannot exceed its part. The
weights are copied beside it, so that their bytes are counted here, before they are copied.
docs/decisions/0045 says why.
"""

import threading
import weakref

from hsoftmax.models.errors import UserError

_RUN_SHARE = 4  # a quarter of the memory is for runs
_MAX_RUN_BYTES = 2 << 30  # twice what a run plans at most


class DeviceMemoryError(UserError):
    """The weights of a bundle do not fit the memory that is left for weights."""


class DeviceMemory:
    """Counts the bytes of weights on the device. Any thread may reserve.

    Attributes:
        limit: bytes of weights and runs together
        run_bytes: the part of runs, which sessions share
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.run_bytes = min(limit // _RUN_SHARE, _MAX_RUN_BYTES)
        self._weight_bytes = 0
        self._lock = threading.Lock()

    @property
    def free_bytes(self) -> int:
        """Return the bytes that are left for weights."""
        return self.limit - self.run_bytes - self._weight_bytes

    def reserve(self, num_bytes: int, owner: object) -> None:
        """Reserve bytes of weights until `owner`, which holds them, is freed.

        Raises:
            DeviceMemoryError: fewer bytes are left.
        """
        with self._lock:
            if num_bytes > self.free_bytes:
                raise DeviceMemoryError(
                    f"expected at most {self.free_bytes:,} bytes of weights, which --gpu-memory "
                    f"{self.limit:,} leaves, got {num_bytes:,}: raise it, or serve the bundle with "
                    "--device cpu"
                )
            self._weight_bytes += num_bytes
        weakref.finalize(owner, self._release, num_bytes)

    def _release(self, num_bytes: int) -> None:
        with self._lock:
            self._weight_bytes -= num_bytes
