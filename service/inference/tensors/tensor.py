"""A named tensor, and its raw bytes: little-endian, in row order, without padding.

An element of BYTES is its length as a little-endian uint32 and then its bytes.
"""

import math
import struct
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np

from hsoftmax.models.arrays import Array
from hsoftmax.service.errors import InvalidQuery, TooLarge, Unreadable

from .datatypes import BF16, BYTES, FP16, RAW_DTYPES, expect_datatype, from_bfloat16, to_bfloat16

MAX_RANK = 8
MAX_ELEMENTS = 2**31  # far more than a body can hold; larger shapes are refused as they are
_LENGTH = struct.Struct("<I")

TensorData = Array | list[bytes]


class Tensor(msgspec.Struct, frozen=True):
    """One input or output.

    Attributes:
        datatype: a name of the protocol, such as "FP32"
        data: an array of this shape, of BF16 in float32; for BYTES the flat list of elements
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: TensorData


def decode_raw(
    name: str,
    datatype: str,
    shape: Sequence[int],
    content: bytes | memoryview,
    *,
    max_texts: int,
) -> Tensor:
    """Read a tensor from its raw bytes, as a view of them where it can be one.

    Raises:
        InvalidQuery: an unknown datatype, or a shape that no tensor has.
        Unreadable: the bytes are not those of a tensor of this datatype and shape.
        TooLarge: more elements of BYTES than `max_texts`.
    """
    dims = expect_shape(name, shape)
    expect_datatype(name, datatype)
    if datatype == BYTES:
        return Tensor(name, datatype, dims, _split(name, dims, memoryview(content), max_texts))
    dtype = RAW_DTYPES[datatype]
    expected = math.prod(dims) * dtype.itemsize
    if len(content) != expected:
        raise Unreadable(
            f"{name}: expected {expected} bytes of {datatype} {list(dims)}, got {len(content)}"
        )
    numbers = np.frombuffer(content, dtype).reshape(dims)
    if not numbers.flags.aligned:  # behind a header of any length; kernels read whole words
        numbers = numbers.copy()
    if datatype == "BOOL" and numbers.size and numbers.view(np.uint8).max() > 1:
        raise Unreadable(f"{name}: expected bytes 0 or 1 of BOOL, got another one")
    return Tensor(name, datatype, dims, from_bfloat16(numbers) if datatype == BF16 else numbers)


def encode_raw(tensor: Tensor) -> bytes:
    """Return the raw bytes of a tensor."""
    if isinstance(tensor.data, list):
        return b"".join(_length_prefixed(tensor.data))
    if tensor.datatype == BF16:
        return to_bfloat16(tensor.data).tobytes()
    return tensor.data.astype(RAW_DTYPES[tensor.datatype], copy=False).tobytes()


def raw_size(tensor: Tensor) -> int:
    """Return the number of raw bytes of a tensor."""
    if isinstance(tensor.data, list):
        return sum(map(len, tensor.data)) + _LENGTH.size * len(tensor.data)
    return tensor.data.size * RAW_DTYPES[tensor.datatype].itemsize


def from_values(name: str, datatype: str, shape: Sequence[int], values: Sequence[Any]) -> Tensor:
    """Build a tensor from its flat list of elements: numbers, booleans, or bytes for BYTES.

    The caller has checked the type of each element, but not its range.

    Raises:
        InvalidQuery: an unknown datatype, FP16 or BF16 (which travel raw only), a shape that no
            tensor has, or an integer that is out of range.
        Unreadable: another number of elements than the shape has.
    """
    dims = expect_shape(name, shape)
    expect_datatype(name, datatype)
    if len(values) != math.prod(dims):
        raise Unreadable(
            f"{name}: expected {math.prod(dims)} elements of shape {list(dims)}, got {len(values)}"
        )
    if datatype in (FP16, BF16):
        raise InvalidQuery(f"{name}: expected {datatype} as raw bytes, got numbers: send FP32")
    if datatype == BYTES:
        return Tensor(name, datatype, dims, list(values))
    try:
        with np.errstate(over="ignore"):  # infinities are refused where numbers must be finite
            numbers = np.array(values, RAW_DTYPES[datatype])
    except OverflowError:
        raise InvalidQuery(f"{name}: expected numbers within {datatype}, got another one") from None
    return Tensor(name, datatype, dims, numbers.reshape(dims))


def expect_shape(name: str, shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape. Raises InvalidQuery for a negative or huge one."""
    dims = tuple(shape)
    if len(dims) > MAX_RANK:
        raise InvalidQuery(f"{name}: expected a shape of at most {MAX_RANK} axes, got {len(dims)}")
    if min(dims, default=0) < 0:
        raise InvalidQuery(f"{name}: expected a shape without negative sizes, got {list(dims)}")
    if math.prod(max(size, 1) for size in dims) > MAX_ELEMENTS:
        raise InvalidQuery(f"{name}: expected a shape of at most {MAX_ELEMENTS} elements, got more")
    return dims


def expect_accepted(tensor: Tensor, accepted: frozenset[str]) -> None:
    """Raise InvalidQuery if an input does not take the datatype of the tensor."""
    if tensor.datatype not in accepted:
        expected = ", ".join(sorted(accepted))
        raise InvalidQuery(f"{tensor.name}: expected {expected}, got {tensor.datatype}")


def _split(name: str, dims: tuple[int, ...], content: memoryview, max_texts: int) -> list[bytes]:
    count = math.prod(dims)
    if count > max_texts:
        raise TooLarge(f"{name}: expected at most {max_texts} elements of BYTES, got {count}")
    elements, start, size = [], 0, len(content)
    for i in range(count):
        begin = start + _LENGTH.size
        end = begin + _LENGTH.unpack_from(content, start)[0] if begin <= size else size + 1
        if end > size:
            raise Unreadable(f"{name}: expected {count} elements of BYTES, got bytes for {i}")
        elements.append(bytes(content[begin:end]))
        start = end
    if start < size:
        raise Unreadable(f"{name}: expected {start} bytes of {count} elements of BYTES, got {size}")
    return elements


def _length_prefixed(elements: Iterable[bytes]) -> Iterable[bytes]:
    for element in elements:
        yield _LENGTH.pack(len(element))
        yield element
