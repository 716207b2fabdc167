"""Defines what a native kernel is: it takes the inputs of a graph and returns its outputs."""

from collections.abc import Mapping
from typing import Any, Protocol

from cffi import FFI

from hsoftmax.models.arrays import Array


class StopFlag:
    """Stops the run of a kernel that another thread has started."""

    _ffi = FFI()

    def __init__(self) -> None:
        self.pointer: Any = self._ffi.new("int32_t *")

    def set(self, stop: bool) -> None:
        """Stop the run, or do not."""
        self.pointer[0] = stop

    @property
    def is_set(self) -> bool:
        """Return True if the run is to stop."""
        return bool(self.pointer[0])


class FreeThreads:
    """Counts the threads that the runs of some kernels may still use at once.

    A large run uses several if they are free, its caller's among them. Two runs at once share them.
    """

    _ffi = FFI()

    def __init__(self, count: int) -> None:
        self.pointer: Any = self._ffi.new("int32_t *", count)


class Kernel(Protocol):
    """Computes one task of one bundle. Several threads may call it."""

    def __call__(self, feeds: Mapping[str, Array], stop: StopFlag | None = None) -> list[Array]:
        """Compute the task; setting `stop` ends it soon.

        Raises:
            NativeError: an input that does not fit, or `stop` was set.
        """
