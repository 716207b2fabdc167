"""Loads the library of native kernels with cffi, and checks the arrays that it gets.

The library has no state, so all threads share it. A call releases the interpreter's lock.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from cffi import FFI, CDefError
from numpy.typing import DTypeLike

from hsoftmax.models.arrays import Array

from .kernel import FreeThreads, StopFlag

FOLDER = Path(__file__).parent  # of the library and its header, where `native/build.py` puts them
_ABI = 4
_FAILURES = {
    1: "the run was stopped",
    2: "there was not enough memory",
    3: "expected valid sizes, got others",
    4: "row: expected a row of the batch, got another",
    5: "target: expected a target of the bundle, got another",
    6: "expected indices that fit the bundle's tensors, got others",
}
_POINTERS = {
    np.dtype(numpy).char: f"{c}[]"
    for numpy, c in {
        "float32": "float", "float16": "uint16_t", "uint16": "uint16_t", "int8": "int8_t",
        "int32": "int32_t", "int64": "int64_t", "bool": "uint8_t", "uint8": "uint8_t",
    }.items()
}  # fmt: skip
_NOT_DECLARATIONS = re.compile(r"/\*.*?\*/|^#.*?$", re.DOTALL | re.MULTILINE)


class NativeError(RuntimeError):
    """A native kernel refused its arguments, or was stopped."""


@dataclass(frozen=True)
class NativeLibrary:
    """The loaded library, and the instructions that it uses on this CPU.

    Attributes:
        functions: the functions that hsoftmax.h declares
        ffi: makes their structures, and the pointers to arrays
    """

    functions: Any
    ffi: FFI
    instruction_set: str

    def pointer(self, array: Array | None) -> Any:  # noqa: ANN401  cffi names no type for it
        """Return a pointer to an array in C order, which it keeps alive; null for None."""
        if array is None:
            return self.ffi.NULL
        return self.ffi.from_buffer(_POINTERS[array.dtype.char], array)

    def flag(self, stop: StopFlag | None) -> Any:  # noqa: ANN401  cffi names no type for it
        """Return the pointer to a flag; null for None."""
        return self.ffi.NULL if stop is None else stop.pointer

    def threads(self, free: FreeThreads | None) -> Any:  # noqa: ANN401  cffi names no type for it
        """Return the pointer to a number of free threads; null for None, which is one thread."""
        return self.ffi.NULL if free is None else free.pointer


@lru_cache(maxsize=1)
def load_library() -> NativeLibrary | str:
    """Load the library; return it, or the reason why there is none."""
    path, ffi = FOLDER / "libhsoftmax.so", FFI()
    if not path.is_file():
        return "it was not built: the installation found no C compiler"
    try:
        ffi.cdef(_NOT_DECLARATIONS.sub("", (FOLDER / "hsoftmax.h").read_text("utf-8")))
        functions = ffi.dlopen(str(path))
        abi = functions.hsoftmax_abi()
    except (OSError, AttributeError, CDefError) as error:
        return f"it does not load: {error}"
    if abi != _ABI:
        return f"expected version {_ABI} of the library, got {abi}: install again"
    name = functions.hsoftmax_instruction_set()
    if name == ffi.NULL:
        return "this CPU has none of AVX-512, AVX2 with FMA, and NEON"
    return NativeLibrary(functions, ffi, ffi.string(name).decode())


def expect_ok(status: int) -> None:
    """Raise NativeError for a status that a function of the library returned."""
    if status:
        raise NativeError(_FAILURES.get(status, f"status {status}"))


def expect_hidden(hidden: Array, width: int) -> Array:
    """Return float32 [batch, width] in C order. Raises NativeError for another type or shape."""
    if hidden.dtype != np.float32 or hidden.ndim != 2 or hidden.shape[1] != width:
        raise mismatch("hidden", hidden, "float32", ["batch", width])
    return np.ascontiguousarray(hidden)


def expect_integers(name: str, numbers: Array, count: int | None = None) -> Array:
    """Return int64 [count] in C order. Raises NativeError for another type or shape."""
    if numbers.dtype != np.int64 or numbers.ndim != 1 or count not in (None, len(numbers)):
        raise mismatch(name, numbers, "int64", ["any" if count is None else count])
    return np.ascontiguousarray(numbers)


def expect_tensor(name: str, tensor: Array, dtype: DTypeLike, shape: tuple[int, ...]) -> Array:
    """Return a bundle's tensor, which is used where it lies. Raises NativeError."""
    if tensor.dtype != dtype or tensor.shape != shape:
        raise mismatch(name, tensor, np.dtype(dtype).name, list(shape))
    if not (tensor.flags.c_contiguous and tensor.flags.aligned):
        raise NativeError(f"{name}: expected C order and alignment, got another layout")
    return tensor


def mismatch(name: str, array: Array, dtype: str, shape: list[Any]) -> NativeError:
    """Return the error for an array of another type or shape."""
    wanted = ", ".join(map(str, shape))
    return NativeError(
        f"{name}: expected {dtype} [{wanted}], got {array.dtype} {list(array.shape)}"
    )
