"""Rebuilds NumPy arrays from pickle data, with checks and without NumPy's own unpickling."""

import math
import re
from collections.abc import Sequence
from typing import Literal

import numpy as np

from hsoftmax.exporter.errors import SourceError
from hsoftmax.models.arrays import Array

from .pickle_machine import ByteString, PickledCall, PickledGlobal

_NUMBER_TYPE = re.compile(r"[<>|=]?(f[248]|[iu][1248]|b1)")
_MAX_AXES = 32
_MAX_SIZE = 2**63 - 1
_MAX_CALLS = 8  # of the result of a call
_MAX_NAME_CHARS = 80  # of a global in a message
_SCALAR_TYPE = re.compile(r"[<>|=]?(?:f[248]|[iu][1248]|b1|[SU]\d{1,9})")
_MODULES = {
    f"numpy.{core}.{part}" for core in ("core", "_core") for part in ("multiarray", "numeric")
}


def numbers(name: str, value: object) -> Array:
    """Return an array of numbers from a pickled array or a list of integers.

    Raises:
        SourceError: other data, or an array whose bytes do not fill its shape.
    """
    if isinstance(value, list | tuple) and all(type(item) is int for item in value):
        if not all(abs(item) <= _MAX_SIZE for item in value):
            raise SourceError(f"{name}: expected integers within int64, got a larger one")
        return np.array(value, dtype=np.int64)
    content, pickled_dtype, shape, order = _array_parts(name, value)
    dtype = _dtype(name, pickled_dtype)
    if (
        not isinstance(shape, tuple)
        or len(shape) > _MAX_AXES
        or not all(type(n) is int and 0 <= n <= _MAX_SIZE for n in shape)
    ):
        raise SourceError(f"{name}: expected the shape of an array, got something else")
    flat = _bytes(content)
    if flat is None or len(flat) != math.prod(shape) * dtype.itemsize:
        actual = "none" if flat is None else len(flat)
        raise SourceError(f"{name}: expected the bytes of {list(shape)} {dtype}, got {actual}")
    array = np.frombuffer(flat, dtype=dtype).reshape(shape, order=order)
    return array.astype(dtype.newbyteorder("="))


def objects(name: str, value: object) -> Sequence[object]:
    """Return the items of a list, or of a pickled array of Python objects."""
    if isinstance(value, list | tuple):
        return value
    if _is_call_of(value, "_reconstruct") and isinstance(value, PickledCall):
        state = value.state
        if isinstance(state, tuple) and len(state) == 5 and isinstance(state[4], list):
            return state[4]
    raise SourceError(f"{name}: expected a list or an array of objects, got {describe(value)}")


def scalar(value: object) -> np.generic | None:
    """Return a pickled NumPy scalar of text, bytes or one number, or None for other data."""
    if not (isinstance(value, PickledCall) and _is_call_of(value, "scalar")):
        return None
    match value.arguments:
        case (
            PickledCall(
                function=PickledGlobal("numpy", "dtype"), arguments=(str(code), *_)
            ) as dtype,
            content,
        ):
            flat = _bytes(content)
            if flat is None or not _SCALAR_TYPE.fullmatch(code):
                return None
            big_endian = isinstance(dtype.state, tuple) and ">" in dtype.state[1:2]
            return _scalar_of_bytes(flat, code, ">" if big_endian else "<")
    return None


def _scalar_of_bytes(content: bytes, code: str, order: Literal["<", ">"]) -> np.generic | None:
    try:
        dtype = np.dtype(code).newbyteorder(order)
        if dtype.itemsize != len(content):
            return None
        value: np.generic = np.frombuffer(content, dtype)[0] if content else dtype.type()
    except (TypeError, ValueError):  # a type that NumPy does not have, or no code point
        return None
    return value


def bytes_of(value: object) -> bytes | None:
    """Return pickled bytes, in any of the forms in which protocols store them, or None."""
    try:
        return _bytes(value)
    except UnicodeEncodeError:  # text that is said to be bytes
        return None


def is_array(value: object) -> bool:
    """Return True for a pickled array, of numbers or of objects."""
    return any(_is_call_of(value, name) for name in ("_reconstruct", "_frombuffer"))


def describe(value: object) -> str:
    """Return a short description of pickle data."""
    for _ in range(_MAX_CALLS):
        value = value.function if isinstance(value, PickledCall) else value
    if isinstance(value, PickledGlobal):
        return str(value)[:_MAX_NAME_CHARS]
    return f"a {type(value).__name__}"


def _array_parts(name: str, value: object) -> tuple[object, object, object, Literal["C", "F"]]:
    """Return (content, dtype, shape, order) of an array in either of NumPy's two pickle formats."""
    if isinstance(value, PickledCall) and _is_call_of(value, "_reconstruct"):
        state = value.state
        if isinstance(state, tuple) and len(state) == 5:
            _, shape, dtype, is_fortran, content = state
            return content, dtype, shape, "F" if is_fortran else "C"
    if isinstance(value, PickledCall) and _is_call_of(value, "_frombuffer"):
        arguments = value.arguments
        if isinstance(arguments, tuple) and len(arguments) == 4:
            content, dtype, shape, order = arguments
            return content, dtype, shape, "F" if order == "F" else "C"
    raise SourceError(f"{name}: expected an array, got {describe(value)}")


def _is_call_of(value: object, function_name: str) -> bool:
    function = value.function if isinstance(value, PickledCall) else None
    return (
        isinstance(function, PickledGlobal)
        and function.module in _MODULES
        and function.name == function_name
    )


def _dtype(name: str, value: object) -> np.dtype:
    if isinstance(value, PickledCall) and value.function == PickledGlobal("numpy", "dtype"):
        arguments, state = value.arguments, value.state
        code = arguments[0] if isinstance(arguments, tuple) and arguments else None
        if isinstance(code, str) and _NUMBER_TYPE.fullmatch(code):
            order = state[1] if isinstance(state, tuple) and len(state) > 1 else "|"
            return np.dtype(code).newbyteorder(">" if order == ">" else "<")
    raise SourceError(f"{name}: expected an array of numbers, got one of something else")


def _bytes(value: object) -> bytes | None:
    """Return bytes from any of the forms in which pickle protocols store them, else None."""
    if isinstance(value, ByteString):
        return value.content
    if isinstance(value, PickledCall) and isinstance(value.arguments, tuple):
        match value.function, value.arguments:
            case PickledGlobal("_codecs", "encode"), (str(text), *_):
                return text.encode("latin-1") if all(c <= "\xff" for c in text) else None
            case PickledGlobal("__builtin__", "bytes"), ():
                return b""
    return bytes(value) if isinstance(value, bytes | bytearray) else None
