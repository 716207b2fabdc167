"""The native kernels of a hierarchical softmax: target_log_prob, top_k and sample."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from hsoftmax.models.arrays import Array
from hsoftmax.models.storage.tensors import level_names

from .kernel import FreeThreads, StopFlag
from .library import (
    NativeError,
    NativeLibrary,
    expect_hidden,
    expect_ok,
    expect_tensor,
    mismatch,
)
from .path_arguments import expect_pairs
from .top_k_arguments import expect_top_k

_WEIGHT_TYPES = {"float32": 0, "float16": 1, "int8": 2, "uint16": 3}  # uint16: bfloat16
_TRANSPOSED_AXES = 3  # of a weight [blocks, hidden_size, block_size]


class LevelsTargetLogProb:
    """The task target_log_prob on the tensors of a bundle, which stay mapped."""

    def __init__(
        self,
        library: NativeLibrary,
        tensors: Mapping[str, Array],
        *,
        num_targets: int,
        threads: FreeThreads | None = None,
    ) -> None:
        """Raises NativeError if the tensors do not fit each other."""
        self._library, self._threads = library, threads
        self._model = _Model(library, tensors, num_targets)

    def __call__(self, feeds: Mapping[str, Array], stop: StopFlag | None = None) -> list[Array]:
        """Return log_prob [pairs] of hidden [batch, hidden_size], row and target [pairs].

        Raises:
            NativeError: an input of another type or shape, a row or target out of range, or `stop`.
        """
        pairs, pointer = expect_pairs(feeds, self._model.hidden_size), self._library.pointer
        status = self._library.functions.hsoftmax_target_log_prob(
            self._model.levels, pointer(pairs.hidden), len(pairs.hidden), pointer(pairs.row),
            pointer(pairs.target), len(pairs.row), self._library.flag(stop),
            self._library.threads(self._threads), pointer(pairs.log_prob),
        )  # fmt: skip
        expect_ok(status)
        return [pairs.log_prob]


class LevelsTopK:
    """The task top_k on the tensors of a bundle, which stay mapped."""

    def __init__(
        self, library: NativeLibrary, tensors: Mapping[str, Array], *, num_targets: int
    ) -> None:
        """Raises NativeError if the tensors do not fit each other."""
        self._library = library
        self._model = _Model(library, tensors, num_targets)
        self._row_target = self._model.row_target(tensors)

    def __call__(self, feeds: Mapping[str, Array], stop: StopFlag | None = None) -> list[Array]:
        """Return log_prob and target [batch, k], opened blocks and exact [batch].

        The inputs are hidden [batch, hidden_size], k [1] and max_blocks [1]; 0 is no limit.

        Raises:
            NativeError: an input of another type or shape, k out of range, or `stop`.
        """
        hidden = expect_hidden(feeds["hidden"], self._model.hidden_size)
        arguments = expect_top_k(feeds, self._model.num_targets, len(hidden))
        pointer = self._library.pointer
        status = self._library.functions.hsoftmax_top_k(
            self._model.levels, self._row_target, pointer(hidden), len(hidden), arguments.k,
            arguments.max_blocks, self._library.flag(stop), *map(pointer, arguments.outputs),
        )  # fmt: skip
        expect_ok(status)
        return arguments.outputs


class LevelsSample:
    """The task sample on the tensors of a bundle, which stay mapped."""

    def __init__(
        self,
        library: NativeLibrary,
        tensors: Mapping[str, Array],
        *,
        num_targets: int,
        threads: FreeThreads | None = None,
    ) -> None:
        """Raises NativeError if the tensors do not fit each other."""
        self._library, self._threads = library, threads
        self._model = _Model(library, tensors, num_targets)
        self._row_target = self._model.row_target(tensors)
        self._alive = self._model.alive(tensors)

    def __call__(self, feeds: Mapping[str, Array], stop: StopFlag | None = None) -> list[Array]:
        """Return target and log_prob [batch, samples].

        The inputs are hidden [batch, hidden_size] and noise [batch, samples, levels] in [0, 1).

        Raises:
            NativeError: an input of another type or shape, noise out of range, or `stop`.
        """
        hidden = expect_hidden(feeds["hidden"], self._model.hidden_size)
        noise = _expect_noise(feeds["noise"], len(hidden), self._model.num_levels)
        target = np.empty(noise.shape[:2], dtype=np.int64)
        log_prob = np.empty(noise.shape[:2], dtype=np.float32)
        pointer = self._library.pointer
        status = self._library.functions.hsoftmax_sample(
            self._model.levels, self._row_target, self._alive, pointer(hidden), len(hidden),
            pointer(noise), noise.shape[1], self._library.flag(stop),
            self._library.threads(self._threads), pointer(target), pointer(log_prob),
        )  # fmt: skip
        expect_ok(status)
        return [target, log_prob]


class _Model:
    """The structure that describes the levels, and the tensors that it points to."""

    def __init__(
        self, library: NativeLibrary, tensors: Mapping[str, Array], num_targets: int
    ) -> None:
        self._library, self._tensors = library, tensors  # pointers do not keep tensors alive
        self.num_targets = num_targets
        self.hidden_size = tensors["level0.weight"].shape[1]
        levels = [_level(library, name, tensors, self.hidden_size) for name in level_names(tensors)]
        self._num_rows, self.num_levels = [level["rows"] for level in levels], len(levels)
        self._levels = library.ffi.new("hsoftmax_level[]", levels)
        rows = tensors.get("target_rows")
        if rows is not None:
            expect_tensor("target_rows", rows, np.int64, (num_targets,))
        self.levels = library.ffi.new("hsoftmax_levels *", {
            "levels": self._levels,
            "target_rows": library.pointer(rows),
            "num_levels": len(levels),
            "num_targets": num_targets,
            "hidden_size": self.hidden_size,
        })  # fmt: skip

    def row_target(self, tensors: Mapping[str, Array]) -> Any:  # noqa: ANN401  cffi's type
        """Return the pointer to the target of each row of the last level; null if they are equal.

        Raises NativeError for another type or shape.
        """
        row_target = tensors.get("row_target")
        if row_target is not None:
            expect_tensor("row_target", row_target, np.int64, (self._num_rows[-1],))
        return self._library.pointer(row_target)

    def alive(self, tensors: Mapping[str, Array]) -> Any:  # noqa: ANN401  cffi's type
        """Return the pointers to the rows that may be drawn on each level; null if all may.

        Raises NativeError for another type or shape.
        """
        if "level0.alive" not in tensors:
            return self._library.ffi.NULL
        masks = [tensors[f"level{i}.alive"] for i in range(self.num_levels)]
        for i, (mask, rows) in enumerate(zip(masks, self._num_rows, strict=True)):
            expect_tensor(f"level{i}.alive", mask, np.float32, (rows,))
        return self._library.ffi.new("float *[]", [self._library.pointer(mask) for mask in masks])


def _expect_noise(noise: Array, batch: int, levels: int) -> Array:
    """Return float32 [batch, samples, levels] in C order. Raises NativeError for another."""
    if noise.dtype != np.float32 or noise.ndim != 3 or noise.shape[::2] != (batch, levels):
        raise mismatch("noise", noise, "float32", [batch, "samples", levels])
    return np.ascontiguousarray(noise)


def _level(
    library: NativeLibrary, name: str, tensors: Mapping[str, Array], hidden_size: int
) -> dict[str, Any]:
    """Describe a level. Raises NativeError if its tensors do not fit each other."""
    bias, offsets = tensors[f"{name}.bias"], tensors[f"{name}.offsets"]
    weight, scale = tensors[f"{name}.weight"], tensors.get(f"{name}.scale")
    rows, blocks = len(bias), max(1, len(offsets) - 1)
    block_size = weight.shape[2] if weight.ndim == _TRANSPOSED_AXES else 0
    shape = (blocks, hidden_size, rows // blocks) if block_size else (rows, hidden_size)
    if weight.dtype.name not in _WEIGHT_TYPES:
        raise NativeError(f"{name}.weight: expected {', '.join(_WEIGHT_TYPES)}, got {weight.dtype}")
    expect_tensor(f"{name}.weight", weight, weight.dtype, shape)
    expect_tensor(f"{name}.bias", bias, np.float32, (rows,))
    expect_tensor(f"{name}.offsets", offsets, np.int64, (blocks + 1,))
    if weight.dtype == np.int8:
        _expect_scale(name, scale, rows)
    if offsets[0] or offsets[-1] != rows or (np.diff(offsets) < 1).any():
        raise NativeError(f"{name}.offsets: expected an ascent from 0 to {rows}, got another")
    return {
        "weight": library.pointer(weight),
        "scale": library.pointer(scale),
        "bias": library.pointer(bias),
        "offsets": library.pointer(offsets),
        "rows": rows,
        "blocks": blocks,
        "block_size": block_size,
        "weight_type": _WEIGHT_TYPES[weight.dtype.name],
    }


def _expect_scale(name: str, scale: Array | None, rows: int) -> None:
    if scale is None:
        raise NativeError(f"{name}.scale: expected one for an int8 weight, got none")
    expect_tensor(f"{name}.scale", scale, np.float32, (rows,))
