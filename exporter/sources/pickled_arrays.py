"""NumPy arrays out of inert pickle data, rebuilt with checks and without NumPy's own unpickling."""

import math
import re
from collections.abc import Sequence

import numpy as np

from hsoftmax.exporter.errors import SourceError
from hsoftmax.models.arrays import Array

from .pickle_reader import ByteString, Made, Name

_NUMBERS = re.compile(r"[<>|=]?[fiub][1248]")
_MODULES = {
    f"numpy.{core}.{part}" for core in ("core", "_core") for part in ("multiarray", "numeric")
}


def numbers(what: str, value: object) -> Array:
    """An array of numbers: one that was pickled, or a list of whole numbers.

    Raises:
        SourceError: something else, or an array whose bytes do not fill its shape.
    """
    if isinstance(value, list | tuple) and all(type(item) is int for item in value):
        return np.array(value, dtype=np.int64)
    content, dtype, shape, order = _parts(what, value)
    kind = _dtype(what, dtype)
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise SourceError(f"{what}: expected the shape of an array, got something else")
    flat = _bytes(content)
    if flat is None or len(flat) != math.prod(shape) * kind.itemsize:
        got = "none" if flat is None else len(flat)
        raise SourceError(f"{what}: expected the bytes of {list(shape)} {kind}, got {got}")
    array = np.frombuffer(flat, dtype=kind).reshape(shape, order="F" if order == "F" else "C")
    return array.astype(kind.newbyteorder("="))


def objects(what: str, value: object) -> Sequence[object]:
    """The items of a list, or of an array of Python objects, one for each."""
    if isinstance(value, list | tuple):
        return value
    if _is(value, "_reconstruct") and isinstance(value, Made):
        state = value.state
        if isinstance(state, tuple) and len(state) == 5 and isinstance(state[4], list):
            return state[4]
    raise SourceError(f"{what}: expected a list or an array of objects, got {described(value)}")


def described(value: object) -> str:
    """What inert data is, in a few words."""
    if isinstance(value, Made):
        value = value.of
    return str(value) if isinstance(value, Name) else f"a {type(value).__name__}"


def _parts(what: str, value: object) -> tuple[object, object, object, str]:
    """(content, dtype, shape, order) of an array pickled in either of NumPy's two ways."""
    if isinstance(value, Made) and _is(value, "_reconstruct"):
        state = value.state
        if isinstance(state, tuple) and len(state) == 5:
            _, shape, dtype, is_fortran, content = state
            return content, dtype, shape, "F" if is_fortran else "C"
    if isinstance(value, Made) and _is(value, "_frombuffer"):
        arguments = value.arguments
        if isinstance(arguments, tuple) and len(arguments) == 4:
            content, dtype, shape, order = arguments
            return content, dtype, shape, str(order)
    raise SourceError(f"{what}: expected an array, got {described(value)}")


def _is(value: object, name: str) -> bool:
    of = value.of if isinstance(value, Made) else None
    return isinstance(of, Name) and of.module in _MODULES and of.name == name


def _dtype(what: str, value: object) -> np.dtype:
    if isinstance(value, Made) and value.of == Name("numpy", "dtype"):
        arguments, state = value.arguments, value.state
        code = arguments[0] if isinstance(arguments, tuple) and arguments else None
        if isinstance(code, str) and _NUMBERS.fullmatch(code):
            order = state[1] if isinstance(state, tuple) and len(state) > 1 else "|"
            return np.dtype(code).newbyteorder(">" if order == ">" else "<")
    raise SourceError(f"{what}: expected an array of numbers, got one of something else")


def _bytes(value: object) -> bytes | None:
    """The bytes themselves, a Python 2 string, or what protocols up to 2 make of bytes."""
    if isinstance(value, ByteString):
        return value.content
    if isinstance(value, Made) and isinstance(value.arguments, tuple):
        match value.of, value.arguments:
            case Name("_codecs", "encode"), (str(text), *_):
                return text.encode("latin-1")
            case Name("__builtin__", "bytes"), ():
                return b""
    return bytes(value) if isinstance(value, bytes | bytearray) else None
