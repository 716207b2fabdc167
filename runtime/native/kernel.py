"""What all native kernels share: they take a graph's inputs and return its outputs."""

from collections.abc import Mapping
from ctypes import byref, c_int32
from typing import Any, Protocol

from hsoftmax.models.arrays import Array


class Kernel(Protocol):
    """Computes one task of one bundle. Several threads may call it."""

    def __call__(self, feeds: Mapping[str, Array], stop: c_int32 | None = None) -> list[Array]:
        """Compute the task; setting `stop` to 1 ends it soon.

        Raises:
            NativeError: an input that does not fit, or `stop` was set.
        """


def address_of_flag(stop: c_int32 | None) -> Any:  # noqa: ANN401  ctypes names no type for it
    return None if stop is None else byref(stop)
