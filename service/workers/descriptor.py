"""A file descriptor that a process passes to the processes that it spawns."""

import os
from multiprocessing import reduction
from typing import Any, Self


class Descriptor:
    """An open file. A spawned process gets a descriptor of its own."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def close(self) -> None:
        os.close(self.descriptor)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self)._attach, (reduction.DupFd(self.descriptor),)

    @classmethod
    def _attach(cls, duplicate: Any) -> Self:  # noqa: ANN401  multiprocessing has no name for it
        return cls(duplicate.detach())
