"""The native kernels of an adaptive softmax: target_log_prob and top_k."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hsoftmax.models.arrays import Array

from .kernel import FreeThreads, StopFlag
from .library import NativeError, NativeLibrary, expect_hidden, expect_ok, expect_tensor
from .path_arguments import expect_pairs
from .top_k_arguments import expect_top_k

_WEIGHT_TYPES = {"float32": 0, "uint16": 3}  # uint16: bfloat16
_MATRIX_AXES = 2


class AdaptiveTargetLogProb:
    """The task target_log_prob on the tensors of a bundle, which stay mapped."""

    def __init__(
        self,
        library: NativeLibrary,
        tensors: Mapping[str, Array],
        cutoffs: Sequence[int],
        threads: FreeThreads | None = None,
    ) -> None:
        """Raises NativeError if the tensors do not fit each other or the cutoffs."""
        self._library, self._threads = library, threads
        self._model = _Model(library, tensors, cutoffs)

    def __call__(self, feeds: Mapping[str, Array], stop: StopFlag | None = None) -> list[Array]:
        """Return log_prob [pairs] of hidden [batch, hidden_size], row and target [pairs].

        Raises:
            NativeError: an input of another type or shape, a row or target out of range, or `stop`.
        """
        pairs, pointer = expect_pairs(feeds, self._model.hidden_size), self._library.pointer
        status = self._library.functions.hsoftmax_adaptive_target_log_prob(
            self._model.adaptive, pointer(pairs.hidden), len(pairs.hidden), pointer(pairs.row),
            pointer(pairs.target), len(pairs.row), self._library.flag(stop),
            self._library.threads(self._threads), pointer(pairs.log_prob),
        )  # fmt: skip
        expect_ok(status)
        return [pairs.log_prob]


class AdaptiveTopK:
    """The task top_k on the tensors of a bundle, which stay mapped."""

    def __init__(
        self,
        library: NativeLibrary,
        tensors: Mapping[str, Array],
        cutoffs: Sequence[int],
        threads: FreeThreads | None = None,
    ) -> None:
        """Raises NativeError if the tensors do not fit each other or the cutoffs."""
        self._library, self._threads = library, threads
        self._model = _Model(library, tensors, cutoffs)

    def __call__(self, feeds: Mapping[str, Array], stop: StopFlag | None = None) -> list[Array]:
        """Return log_prob and target [batch, k], opened tails and exact [batch].

        The inputs are hidden [batch, hidden_size], k [1] and max_blocks [1]; 0 is no limit.

        Raises:
            NativeError: an input of another type or shape, k out of range, or `stop`.
        """
        hidden = expect_hidden(feeds["hidden"], self._model.hidden_size)
        arguments = expect_top_k(feeds, self._model.num_targets, len(hidden))
        pointer = self._library.pointer
        status = self._library.functions.hsoftmax_adaptive_top_k(
            self._model.adaptive, pointer(hidden), len(hidden), arguments.k, arguments.max_blocks,
            self._library.flag(stop), self._library.threads(self._threads),
            *map(pointer, arguments.outputs),
        )  # fmt: skip
        expect_ok(status)
        return arguments.outputs


class _Model:
    """The structure that describes head and tails, and the tensors that it points to."""

    def __init__(
        self, library: NativeLibrary, tensors: Mapping[str, Array], cutoffs: Sequence[int]
    ) -> None:
        self._tensors = tensors  # pointers do not keep them alive
        names = ["head", *(f"tail{i}" for i in range(len(cutoffs)))]
        self.hidden_size = _hidden_size(tensors)
        layers = [_layer(library, name, tensors, self.hidden_size) for name in names]
        sizes = [layer["rows"] for layer in layers]
        self.num_targets = sum(sizes) - len(cutoffs)
        _expect_cutoffs(sizes, cutoffs)
        self._layers = library.ffi.new("hsoftmax_layer[]", layers)
        self.adaptive = library.ffi.new("hsoftmax_adaptive *", {
            "layers": self._layers,
            "num_layers": len(layers),
            "hidden_size": self.hidden_size,
        })  # fmt: skip


def _hidden_size(tensors: Mapping[str, Array]) -> int:
    """Return the number of columns of the head's projection or, without one, of its weight."""
    name = "head.projection" if "head.projection" in tensors else "head.weight"
    return int(_matrix(tensors, name).shape[1])


def _matrix(tensors: Mapping[str, Array], name: str) -> Array:
    if tensors[name].ndim != _MATRIX_AXES:
        raise NativeError(f"{name}: expected [rows, columns], got {list(tensors[name].shape)}")
    return tensors[name]


def _layer(
    library: NativeLibrary, name: str, tensors: Mapping[str, Array], hidden_size: int
) -> dict[str, Any]:
    """Describe a layer. Raises NativeError if its tensors do not fit each other."""
    weight, bias = _matrix(tensors, f"{name}.weight"), tensors.get(f"{name}.bias")
    projection = tensors.get(f"{name}.projection")
    rows, width = weight.shape
    if weight.dtype.name not in _WEIGHT_TYPES:
        raise NativeError(f"{name}.weight: expected {', '.join(_WEIGHT_TYPES)}, got {weight.dtype}")
    wanted = hidden_size if projection is None else width
    expect_tensor(f"{name}.weight", weight, weight.dtype, (rows, wanted))
    if projection is not None:
        expect_tensor(f"{name}.projection", projection, np.float32, (width, hidden_size))
    if bias is not None:
        expect_tensor(f"{name}.bias", bias, np.float32, (rows,))
    return {
        "weight": library.pointer(weight if width else None),
        "bias": library.pointer(bias),
        "projection": library.pointer(projection if width else None),
        "rows": rows,
        "width": width,
        "weight_type": _WEIGHT_TYPES[weight.dtype.name],
    }


def _expect_cutoffs(sizes: Sequence[int], cutoffs: Sequence[int]) -> None:
    """Raise NativeError unless the layers of these sizes start at the cutoffs."""
    head, *tails = sizes
    starts = np.cumsum([head - len(tails), *tails[:-1]]).tolist()
    if list(cutoffs) != starts:
        raise NativeError(f"cutoffs: expected {starts}, as the tensors have, got {list(cutoffs)}")
