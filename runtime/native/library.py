"""Loads the library of native kernels, and checks the arrays that it gets.

`native/hsoftmax.h` declares its functions. The library has no state, so all threads share it.
"""

import ctypes
from ctypes import c_char_p
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from hsoftmax.models.arrays import Array

LIBRARY = Path(__file__).parent / "libhsoftmax.so"
_ABI = 1
_FAILURES = {
    1: "the run was stopped",
    2: "there was not enough memory",
    3: "expected valid sizes, got others",
    4: "row: expected a row of the batch, got another",
    5: "target: expected a target of the bundle, got another",
    6: "expected indices that fit the bundle's tensors, got others",
}


class NativeError(RuntimeError):
    """A native kernel refused its arguments, or was stopped."""


@dataclass(frozen=True)
class NativeLibrary:
    """The loaded library, and the instructions that it uses on this CPU."""

    functions: ctypes.CDLL
    instruction_set: str


@lru_cache(maxsize=1)
def load_library() -> NativeLibrary | str:
    """Load the library; return it, or the reason why there is none."""
    if not LIBRARY.is_file():
        return "it was not built: the installation found no C compiler"
    try:
        functions = ctypes.CDLL(str(LIBRARY))
        abi = functions.hsoftmax_abi()
    except (OSError, AttributeError) as error:
        return f"it does not load: {error}"
    if abi != _ABI:
        return f"expected version {_ABI} of the library, got {abi}: install again"
    functions.hsoftmax_instruction_set.restype = c_char_p
    name = functions.hsoftmax_instruction_set()
    if name is None:
        return "this CPU has none of AVX-512, AVX2 with FMA, and NEON"
    return NativeLibrary(functions, name.decode())


def expect_ok(status: int) -> None:
    """Raise NativeError for a status that a function of the library returned."""
    if status:
        raise NativeError(_FAILURES.get(status, f"status {status}"))


def expect_input(name: str, array: Array, dtype: DTypeLike, shape: tuple[int | None, ...]) -> Array:
    """Return the array, in C order and aligned. Raises NativeError for another type or shape."""
    fits = array.ndim == len(shape) and all(
        wanted in (None, got) for wanted, got in zip(shape, array.shape, strict=True)
    )
    if array.dtype != dtype or not fits:
        wanted = ["any" if size is None else size for size in shape]
        raise NativeError(
            f"{name}: expected {np.dtype(dtype)} {wanted}, got {array.dtype} {list(array.shape)}"
        )
    return np.require(array, requirements=["C", "A"])


def expect_tensor(name: str, tensor: Array, dtype: DTypeLike, shape: tuple[int, ...]) -> int:
    """Return the address of a bundle's tensor, which is used where it lies. Raises NativeError."""
    expect_input(name, tensor, dtype, shape)
    if not (tensor.flags.c_contiguous and tensor.flags.aligned):
        raise NativeError(f"{name}: expected C order and alignment, got another layout")
    return tensor.ctypes.data
