"""The native kernel of a hierarchical softmax: target_log_prob."""

from collections.abc import Mapping
from ctypes import POINTER, Structure, byref, c_int32, c_int64, c_void_p

import numpy as np

from hsoftmax.models.arrays import Array
from hsoftmax.models.storage.tensors import level_names

from .kernel import address_of_flag
from .library import NativeError, NativeLibrary, expect_input, expect_ok, expect_tensor

_WEIGHT_TYPES = {"float32": 0, "float16": 1, "int8": 2}
_TRANSPOSED_AXES = 3  # of a weight [blocks, hidden_size, block_size]


class _Level(Structure):
    _fields_ = (
        ("weight", c_void_p),
        ("scale", c_void_p),
        ("bias", c_void_p),
        ("offsets", c_void_p),
        ("rows", c_int64),
        ("blocks", c_int64),
        ("block_size", c_int64),
        ("weight_type", c_int32),
    )


class _Levels(Structure):
    _fields_ = (
        ("levels", POINTER(_Level)),
        ("target_rows", c_void_p),
        ("num_levels", c_int64),
        ("num_targets", c_int64),
        ("hidden_size", c_int64),
    )


class LevelsTargetLogProb:
    """The task target_log_prob on the tensors of a bundle, which stay mapped."""

    def __init__(
        self,
        library: NativeLibrary,
        tensors: Mapping[str, Array],
        *,
        num_targets: int,
    ) -> None:
        """Raises NativeError if the tensors do not fit each other."""
        self._function = library.functions.hsoftmax_target_log_prob
        self._function.argtypes = [
            POINTER(_Levels), c_void_p, c_int64, c_void_p, c_void_p, c_int64, c_void_p, c_void_p,
        ]  # fmt: skip
        self._tensors = tensors
        self._hidden_size = hidden_size = tensors["level0.weight"].shape[1]
        names = level_names(tensors)
        levels = (_Level * len(names))(*(_level(name, tensors, hidden_size) for name in names))
        rows = tensors.get("target_rows")
        address = None
        if rows is not None:
            address = expect_tensor("target_rows", rows, np.int64, (num_targets,))
        self._model = _Levels(levels, address, len(names), num_targets, hidden_size)

    def __call__(self, feeds: Mapping[str, Array], stop: c_int32 | None = None) -> list[Array]:
        """Return log_prob [pairs] of hidden [batch, hidden_size], row and target [pairs].

        Raises:
            NativeError: an input of another type or shape, a row or target out of range, or `stop`.
        """
        hidden = expect_input("hidden", feeds["hidden"], np.float32, (None, self._hidden_size))
        row = expect_input("row", feeds["row"], np.int64, (None,))
        target = expect_input("target", feeds["target"], np.int64, row.shape)
        log_prob = np.empty(len(row), dtype=np.float32)
        status = self._function(
            byref(self._model), hidden.ctypes.data, len(hidden), row.ctypes.data,
            target.ctypes.data, len(row), address_of_flag(stop), log_prob.ctypes.data,
        )  # fmt: skip
        expect_ok(status)
        return [log_prob]


def _level(name: str, tensors: Mapping[str, Array], hidden_size: int) -> _Level:
    """Describe a level. Raises NativeError if its tensors do not fit each other."""
    bias, offsets = tensors[f"{name}.bias"], tensors[f"{name}.offsets"]
    weight, scale = tensors[f"{name}.weight"], tensors.get(f"{name}.scale")
    rows, blocks = len(bias), max(1, len(offsets) - 1)
    block_size = weight.shape[2] if weight.ndim == _TRANSPOSED_AXES else 0
    shape = (blocks, hidden_size, rows // blocks) if block_size else (rows, hidden_size)
    if weight.dtype.name not in _WEIGHT_TYPES:
        raise NativeError(f"{name}.weight: expected {', '.join(_WEIGHT_TYPES)}, got {weight.dtype}")
    level = _Level(
        expect_tensor(f"{name}.weight", weight, weight.dtype, shape),
        _scale(name, scale, rows) if weight.dtype == np.int8 else None,
        expect_tensor(f"{name}.bias", bias, np.float32, (rows,)),
        expect_tensor(f"{name}.offsets", offsets, np.int64, (blocks + 1,)),
        rows, blocks, block_size, _WEIGHT_TYPES[weight.dtype.name],
    )  # fmt: skip
    if offsets[0] or offsets[-1] != rows or (np.diff(offsets) < 1).any():
        raise NativeError(f"{name}.offsets: expected an ascent from 0 to {rows}, got another")
    return level


def _scale(name: str, scale: Array | None, rows: int) -> int:
    if scale is None:
        raise NativeError(f"{name}.scale: expected one for an int8 weight, got none")
    return expect_tensor(f"{name}.scale", scale, np.float32, (rows,))
