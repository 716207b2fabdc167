"""Notices that a bundle's weights were changed in place while sessions have them mapped.

A mapped file shows every change at once: answers would mix old and new weights, and a read beyond
the end of a file that became shorter ends the process with SIGBUS. Replacing a file by a rename is
no such change, as the mapping keeps the old file.
"""

import os
import weakref
from pathlib import Path

from hsoftmax.models import UserError


class WeightsChanged(UserError):
    """The weights are not those that were checked when the bundle was loaded."""


class WeightsGuard:
    """Compares size and modification time of the open file with those at the start.

    Writing sets the time before the content changes. A comparison takes one to two microseconds.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)
        self._state = self._read_state()

    @property
    def unchanged(self) -> bool:
        return self._read_state() == self._state

    def expect_unchanged(self) -> None:
        """Raise WeightsChanged if the file was written to or truncated."""
        if not self.unchanged:
            raise WeightsChanged(
                "weights: expected them as they were loaded, got a change in place"
            )

    def _read_state(self) -> tuple[int, int]:
        state = os.fstat(self._descriptor)
        return state.st_size, state.st_mtime_ns
