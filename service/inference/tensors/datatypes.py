"""The datatypes of the Open Inference Protocol, and the NumPy type that holds each."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from hsoftmax.models.arrays import Array, Float32
from hsoftmax.service.errors import InvalidQuery

BYTES, BF16, FP16 = "BYTES", "BF16", "FP16"

# The little-endian type of a tensor's raw bytes. BF16 is the upper half of a float32.
RAW_DTYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    FP16: np.dtype("<f2"),
    BF16: np.dtype("<u2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
DATATYPES = (*RAW_DTYPES, BYTES)
FLOATS = frozenset({FP16, BF16, "FP32", "FP64"})
INTEGERS = frozenset(name for name in RAW_DTYPES if "INT" in name)


def expect_datatype(tensor_name: str, datatype: str) -> None:
    """Raise InvalidQuery unless the protocol has the datatype."""
    if datatype not in DATATYPES:
        meant = datatype.upper()
        hint = f": did you mean {meant}?" if meant in DATATYPES else ""
        expected = ", ".join(DATATYPES)
        raise InvalidQuery(
            f"{tensor_name}: expected a datatype of {expected}, got {datatype[:60]!r}{hint}"
        )


def from_bfloat16(bits: Array) -> Float32:
    """Return the numbers whose upper 16 bits these are. Every one is exact in float32."""
    numbers: Float32 = (bits.astype(np.uint32) << 16).view(np.float32)
    return numbers


def to_bfloat16(numbers: Array) -> Array:
    """Return the bits of the nearest bfloat16 of each number; of two, of the one with even bits."""
    bits = np.ascontiguousarray(numbers, dtype=np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    not_a_number = (bits & 0x7FFFFFFF) > 0x7F800000  # rounding could make it an infinity
    return np.where(not_a_number, (bits >> 16) | 0x40, rounded).astype("<u2")
