"""Tensors as the clients of the Open Inference Protocol write and read them, without our code.

A value is an array, or a list of texts for BYTES.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

_DTYPES = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "INT32": "<i4", "INT64": "<i8", "BOOL": "?"}
_KINDS = {"f": "FP", "i": "INT", "u": "UINT"}


def datatype_and_shape(value: Any) -> tuple[str, list[int]]:
    """Return the protocol's name of a value's type, and its shape."""
    if isinstance(value, list):
        return "BYTES", [len(value)]
    if value.dtype == bool:
        return "BOOL", list(value.shape)
    return f"{_KINDS[value.dtype.kind]}{8 * value.itemsize}", list(value.shape)


def raw_bytes(value: Any) -> bytes:
    """Return the raw bytes of a value: little-endian, in row order; texts with their lengths."""
    if isinstance(value, list):
        return b"".join(len(t.encode()).to_bytes(4, "little") + t.encode() for t in value)
    return bytes(value.tobytes())


def array_of(datatype: str, shape: Sequence[int], content: bytes | Sequence[Any]) -> np.ndarray:
    """Return the array of raw bytes, or of a list of elements; that of BYTES has texts."""
    if datatype == "BYTES":
        elements = _split(content) if isinstance(content, bytes) else content
        texts = [one.decode() if isinstance(one, bytes) else one for one in elements]
        return np.array(texts).reshape(shape)
    if isinstance(content, bytes):
        return np.frombuffer(content, _DTYPES[datatype]).reshape(shape)
    return np.array(content, _DTYPES[datatype]).reshape(shape)


def _split(raw: bytes) -> Iterator[bytes]:
    while raw:
        length = int.from_bytes(raw[:4], "little")
        yield raw[4 : 4 + length]
        raw = raw[4 + length :]
