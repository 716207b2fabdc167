"""Raw bytes of tensors: every tensor returns as it was, and wrong bytes give one error."""

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hsoftmax.service.errors import InvalidQuery, ServiceError, TooLarge, Unreadable
from hsoftmax.service.inference.tensors.datatypes import (
    BF16,
    BYTES,
    DATATYPES,
    RAW_DTYPES,
    to_bfloat16,
)
from hsoftmax.service.inference.tensors.tensor import Tensor, decode_raw, encode_raw, from_values

MAX_TEXTS = 1000
SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


@st.composite
def tensors(draw) -> Tensor:
    datatype, shape = draw(st.sampled_from(DATATYPES)), draw(SHAPES)
    if datatype == BYTES:
        count = math.prod(shape)
        return Tensor("x", datatype, shape, draw(st.lists(st.binary(max_size=9), min_size=count,
                                                          max_size=count)))  # fmt: skip
    if datatype == BF16:
        bits = draw(arrays.arrays(np.uint16, shape))
        return decode_raw("x", BF16, shape, bits.astype("<u2").tobytes(), max_texts=0)
    return Tensor("x", datatype, shape, draw(arrays.arrays(RAW_DTYPES[datatype], shape)))


@given(tensors())
def test_a_tensor_returns_from_its_bytes(tensor):
    content = encode_raw(tensor)
    again = decode_raw("x", tensor.datatype, tensor.shape, content, max_texts=MAX_TEXTS)
    assert (again.datatype, again.shape) == (tensor.datatype, tensor.shape)
    if tensor.datatype == BYTES:
        assert again.data == tensor.data
    else:
        np.testing.assert_array_equal(again.data, tensor.data)
        assert tuple(again.data.shape) == tensor.shape


def read(datatype: str, shape: list[int], content: bytes) -> Tensor | ServiceError:
    try:
        return decode_raw("x", datatype, shape, content, max_texts=MAX_TEXTS)
    except ServiceError as error:
        return error


@given(
    st.sampled_from([*DATATYPES, "FP8", "", "fp32"]),
    st.lists(st.integers(-2, 2**70), max_size=10),
    st.binary(max_size=64),
)
def test_hostile_bytes_give_a_tensor_or_one_error(datatype, shape, content):
    got = read(datatype, shape, content)
    if isinstance(got, ServiceError):
        assert got.status < 500
        assert str(got).startswith("x: expected")
    else:
        assert encode_raw(got) == content or datatype == BF16  # NaN has several forms


@given(st.integers(0, 6), st.binary(max_size=64))
def test_hostile_texts_give_a_list_or_one_error(count, content):
    got = read(BYTES, [count], content)
    if isinstance(got, ServiceError):
        assert isinstance(got, Unreadable)
        assert "of BYTES" in str(got)
    else:
        assert encode_raw(got) == content


def test_bytes_are_little_endian_and_in_row_order():
    array = np.array([[1, 2], [3, 4]], np.int32)
    assert encode_raw(Tensor("x", "INT32", (2, 2), array.T.copy().T)) == struct.pack(
        "<4i", 1, 2, 3, 4
    )
    assert encode_raw(Tensor("x", BYTES, (2,), [b"a", b""])) == b"\1\0\0\0a\0\0\0\0"


def test_a_number_becomes_the_nearest_bfloat16():
    numbers = np.array([1.0, 1.00390625, 1.01171875, 3.4e38, np.inf, np.nan], np.float32)
    assert to_bfloat16(numbers).tolist() == [0x3F80, 0x3F80, 0x3F82, 0x7F80, 0x7F80, 0x7FC0]


@pytest.mark.parametrize(
    ("datatype", "shape", "content", "error", "sentence"),
    [
        ("FP32", [2], b"1234", Unreadable, "x: expected 8 bytes of FP32 [2], got 4"),
        ("FP99", [1], b"", InvalidQuery, "x: expected a datatype of BOOL"),
        ("fp32", [1], b"", InvalidQuery, "got 'fp32': did you mean FP32?"),
        ("FP32", [-1], b"", InvalidQuery, "x: expected a shape without negative sizes, got [-1]"),
        ("FP32", [1] * 9, b"", InvalidQuery, "x: expected a shape of at most 8 axes, got 9"),
        ("FP32", [2**40, 0], b"", InvalidQuery, "x: expected a shape of at most"),
        ("BOOL", [1], b"\2", Unreadable, "x: expected bytes 0 or 1 of BOOL"),
        (BYTES, [1], b"\5\0\0\0ab", Unreadable, "x: expected 1 elements of BYTES, got bytes for 0"),
        (BYTES, [1], b"\0\0\0\0a", Unreadable, "x: expected 4 bytes of 1 elements of BYTES, got 5"),
        (BYTES, [1001], b"", TooLarge, "x: expected at most 1000 elements of BYTES, got 1001"),
    ],
)
def test_an_error_says_what_was_expected(datatype, shape, content, error, sentence):
    with pytest.raises(error) as raised:
        decode_raw("x", datatype, shape, content, max_texts=MAX_TEXTS)
    assert sentence in str(raised.value)


def test_values_become_a_tensor_of_their_shape():
    assert from_values("x", "INT8", [2, 1], [-128, 127]).data.tolist() == [[-128], [127]]
    assert from_values("x", "FP32", [1], [1e300]).data.tolist() == [np.inf]
    assert from_values("x", BYTES, [1], [b"a"]).data == [b"a"]
    with pytest.raises(InvalidQuery, match="x: expected numbers within INT8"):
        from_values("x", "INT8", [1], [128])
    with pytest.raises(Unreadable, match=r"x: expected 2 elements of shape \[2\], got 1"):
        from_values("x", "FP32", [2], [1.0])
