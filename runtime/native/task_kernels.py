"""The tasks that native kernels compute, each for a model of any family.

The library has one function for each family and task, `hsoftmax_<family>_<task>`. The functions of
a task have the same arguments.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from hsoftmax.models.arrays import Array

from .kernel import FreeThreads, StopFlag
from .library import NativeLibrary, expect_hidden, expect_integers, expect_ok, mismatch
from .model import NativeModel


@dataclass(frozen=True)
class TaskKernel:
    """One task of one model. Several threads may call it.

    Attributes:
        name: the task, as in the library's function names
        threads: the threads that large runs may use; None for the caller's alone
    """

    name: ClassVar[str]
    library: NativeLibrary
    model: NativeModel
    threads: FreeThreads | None = None

    @cached_property
    def _function(self) -> Any:  # noqa: ANN401  cffi names no type for it
        """The function of the library, which cffi looks up once."""
        return getattr(self.library.functions, f"hsoftmax_{self.model.family}_{self.name}")

    def _call(self, inputs: tuple[Any, ...], stop: StopFlag | None, outputs: list[Array]) -> None:
        """Fill in the outputs. Raises NativeError for the status that the library returns."""
        library = self.library
        status = self._function(
            self.model.structure, *inputs, library.flag(stop), library.threads(self.threads),
            *map(library.pointer, outputs),
        )  # fmt: skip
        expect_ok(status)


class TargetLogProbKernel(TaskKernel):
    """The task target_log_prob."""

    name = "target_log_prob"

    def __call__(self, feeds: Mapping[str, Array], stop: StopFlag | None = None) -> list[Array]:
        """Return log_prob [pairs] of hidden [batch, hidden_size], row and target [pairs].

        Raises:
            NativeError: an input of another type or shape, a row or target out of range, or `stop`.
        """
        hidden = expect_hidden(feeds["hidden"], self.model.hidden_size)
        row = expect_integers("row", feeds["row"])
        target = expect_integers("target", feeds["target"], len(row))
        log_prob: Array = np.empty(len(row), dtype=np.float32)
        pointer = self.library.pointer
        inputs = (pointer(hidden), len(hidden), pointer(row), pointer(target), len(row))
        self._call(inputs, stop, [log_prob])
        return [log_prob]


class TopKKernel(TaskKernel):
    """The task top_k."""

    name = "top_k"

    def __call__(self, feeds: Mapping[str, Array], stop: StopFlag | None = None) -> list[Array]:
        """Return log_prob and target [batch, k], opened blocks, nodes or tails and exact [batch].

        The inputs are hidden [batch, hidden_size], k [1] and max_blocks [1]; 0 is no limit.

        Raises:
            NativeError: an input of another type or shape, k out of range, or `stop`.
        """
        hidden = expect_hidden(feeds["hidden"], self.model.hidden_size)
        k = int(expect_integers("k", feeds["k"], 1)[0])
        max_blocks = int(expect_integers("max_blocks", feeds["max_blocks"], 1)[0])
        batch = len(hidden)
        # The library refuses a k out of range; here it only may not make the outputs huge.
        shape = (batch, min(max(k, 0), self.model.num_targets))
        outputs: list[Array] = [
            np.empty(shape, dtype=np.float32),
            np.empty(shape, dtype=np.int64),
            np.empty(batch, dtype=np.int64),
            np.empty(batch, dtype=np.bool_),
        ]
        self._call((self.library.pointer(hidden), batch, k, max_blocks), stop, outputs)
        return outputs


class SampleKernel(TaskKernel):
    """The task sample."""

    name = "sample"

    def __call__(self, feeds: Mapping[str, Array], stop: StopFlag | None = None) -> list[Array]:
        """Return target and log_prob [batch, samples].

        The inputs are hidden [batch, hidden_size] and noise [batch, samples, steps] in [0, 1).

        Raises:
            NativeError: an input of another type or shape, noise out of range, or `stop`.
        """
        hidden = expect_hidden(feeds["hidden"], self.model.hidden_size)
        noise = _expect_noise(feeds["noise"], len(hidden), self.model.noise_per_sample)
        outputs: list[Array] = [
            np.empty(noise.shape[:2], dtype=np.int64),
            np.empty(noise.shape[:2], dtype=np.float32),
        ]
        pointer = self.library.pointer
        inputs = (pointer(hidden), len(hidden), pointer(noise), noise.shape[1])
        self._call(inputs, stop, outputs)
        return outputs


def _expect_noise(noise: Array, batch: int, steps: int) -> Array:
    """Return float32 [batch, samples, steps] in C order. Raises NativeError for another."""
    if noise.dtype != np.float32 or noise.ndim != 3 or noise.shape[::2] != (batch, steps):
        raise mismatch("noise", noise, "float32", [batch, "samples", steps])
    return np.ascontiguousarray(noise)
