"""Reads the body of an inference request: JSON, JSON with raw tensors behind it, or one raw tensor.

The header `Inference-Header-Content-Length` says how many bytes are JSON. Without it all are. With
0 the body is the rows of a bundle as raw bytes.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from hsoftmax.service.codecs.json import decode, error_message
from hsoftmax.service.errors import InvalidQuery, Unreadable
from hsoftmax.service.inference.body_bounds import check_body_shape
from hsoftmax.service.inference.tensors.datatypes import BYTES, FLOATS, INTEGERS, expect_datatype
from hsoftmax.service.inference.tensors.inputs import HIDDEN
from hsoftmax.service.inference.tensors.request import (
    InferRequest,
    ParameterValue,
    RequestedOutput,
    distinct_names,
)
from hsoftmax.service.inference.tensors.tensor import (
    Tensor,
    decode_raw,
    expect_shape,
    from_values,
)
from hsoftmax.service.repository.loaded_bundle import LoadedBundle
from hsoftmax.service.settings import Settings

HEADER_LENGTH = b"inference-header-content-length"
BINARY_SIZE, BINARY, BINARY_BY_DEFAULT = "binary_data_size", "binary_data", "binary_data_output"
_SHARED_MEMORY = "shared_memory_region"
_FLOAT_BYTES = 4
_WHITE_SPACE = b" \t\r\n"
_LOOKED_AT_BYTES = 256  # of data, for a list in a list

_Parameters = dict[str, Any] | None


class _Input(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    parameters: _Parameters = None
    data: Raw | UnsetType = UNSET


class _Output(msgspec.Struct):
    name: str
    parameters: _Parameters = None


class _Body(msgspec.Struct):
    inputs: list[_Input]
    outputs: list[_Output] | None = None
    parameters: dict[str, bool | int | float | str | None] | None = None
    id: str | None = None


_DECODER = msgspec.json.Decoder(_Body)


class BinaryOutputs(msgspec.Struct, frozen=True):
    """The outputs that the response has as raw bytes.

    Attributes:
        by_output: True or False for each output that the request names
        by_default: the value of all other outputs
    """

    by_output: Mapping[str, bool] = {}
    by_default: bool = False

    def has(self, name: str) -> bool:
        return self.by_output.get(name, self.by_default)


def read_infer_body(
    body: bytes,
    header_length: bytes | None,
    bundle: LoadedBundle,
    settings: Settings,
) -> tuple[InferRequest, BinaryOutputs]:
    """Read a request but for the data of its inputs, and the outputs that are to be raw.

    Raises:
        ServiceError: the body is not a request, or its parts do not fit together.
    """
    length = _json_length(header_length, len(body))
    if length == 0:
        return _raw_request(body, bundle), BinaryOutputs(by_default=True)
    content = body if length is None or length == len(body) else body[:length]
    check_body_shape(content, bundle, settings, as_tensors=True)
    parsed = decode(_DECODER, content)
    max_texts = settings.max_targets + settings.max_rows
    raw = memoryview(body)[len(content) :]

    async def read_inputs() -> dict[str, Tensor]:
        return {tensor.name: tensor for tensor in _tensors(parsed.inputs, raw, max_texts)}

    parameters = _without_nulls(parsed.parameters)
    request = InferRequest(
        model=bundle.name,
        input_names=distinct_names([one.name for one in parsed.inputs]),
        read_inputs=read_inputs,
        outputs=tuple(map(_requested, parsed.outputs or ())),
        parameters=parameters,
        version=bundle.version,
        id=parsed.id or "",
    )
    return request, _binary_outputs(parsed.outputs or (), parameters)


def _json_length(header: bytes | None, body_length: int) -> int | None:
    """Return the number of bytes of JSON; None if there is no header. Raises Unreadable."""
    if header is None:
        return None
    length = int(header) if header.isdigit() and len(header) < 12 else -1
    if not 0 <= length <= body_length:
        raise Unreadable(
            f"{HEADER_LENGTH.decode()}: expected 0 to {body_length}, the length of the body, "
            f"got {header[:60].decode('latin-1')!r}"
        )
    return length


def _raw_request(body: bytes, bundle: LoadedBundle) -> InferRequest:
    """Return the request of a body that is the hidden states alone, in float32."""
    width = bundle.hidden_size
    if not width:
        raise Unreadable(
            f"{HEADER_LENGTH.decode()}: expected the length of the JSON, as {bundle.name} has "
            "several inputs, got 0"
        )
    rows, rest = divmod(len(body), _FLOAT_BYTES * width)
    if rest or not rows:
        raise Unreadable(
            f"body: expected rows of {width} FP32 numbers, {_FLOAT_BYTES * width} bytes each, "
            f"got {len(body)} bytes"
        )

    async def read_inputs() -> dict[str, Tensor]:
        return {HIDDEN: decode_raw(HIDDEN, "FP32", (rows, width), body, max_texts=0)}

    return InferRequest(bundle.name, (HIDDEN,), read_inputs, version=bundle.version)


def _tensors(inputs: Sequence[_Input], raw: memoryview, max_texts: int) -> Iterator[Tensor]:
    """Yield the inputs; the raw ones take their bytes in order, and leave none."""
    start = 0
    for one in inputs:
        size = _raw_size(one)
        if size is None:
            yield _json_tensor(one)
            continue
        if start + size > len(raw):
            raise Unreadable(
                f"{one.name[:60]}: expected {size} bytes behind the JSON, got {len(raw) - start}"
            )
        content = raw[start : start + size]
        yield decode_raw(one.name[:60], one.datatype, one.shape, content, max_texts=max_texts)
        start += size
    if start < len(raw):
        raise Unreadable(f"body: expected {start} bytes behind the JSON, got {len(raw)}")


def _raw_size(one: _Input) -> int | None:
    """Return `binary_data_size`; None for an input whose data is in the JSON. Raises Unreadable."""
    parameters = one.parameters or {}
    if _SHARED_MEMORY in parameters:
        raise InvalidQuery(f"{one.name[:60]}: expected data, got shared memory, which is not read")
    size = parameters.get(BINARY_SIZE)
    if (size is None) == (one.data is UNSET):
        got = "neither" if size is None else "both"
        raise Unreadable(f"{one.name[:60]}: expected data or {BINARY_SIZE}, got {got}")
    if size is not None and (type(size) is not int or size < 0):
        raise Unreadable(f"{one.name[:60]}: expected {BINARY_SIZE} as a number of bytes")
    return size


def _json_tensor(one: _Input) -> Tensor:
    name, shape = one.name[:60], expect_shape(one.name[:60], one.shape)
    expect_datatype(name, one.datatype)
    assert isinstance(one.data, Raw)
    start = bytes(memoryview(one.data)[:_LOOKED_AT_BYTES])
    is_nested = start.translate(None, _WHITE_SPACE).startswith(b"[[")
    depth = len(shape) if is_nested else 1
    decoder = _values_decoder(_element_type(one.datatype), depth)
    try:
        values = decoder.decode(one.data)
    except msgspec.ValidationError as error:
        problem = error_message(str(error), decoder.type).removeprefix("body: ")
        raise InvalidQuery(f"{name} data: {problem}") from None
    flat = _flatten(name, values, shape) if is_nested else values
    return from_values(name, one.datatype, shape, _encoded(name, flat, one.datatype))


def _element_type(datatype: str) -> Any:  # noqa: ANN401  a type
    """Return the type of an element in JSON; some clients write integers with a point."""
    if datatype == BYTES:
        return str
    if datatype == "BOOL":
        return bool
    return float if datatype in FLOATS else int | float


@lru_cache(maxsize=64)
def _values_decoder(element: Any, depth: int) -> msgspec.json.Decoder[list[Any]]:  # noqa: ANN401
    nested: Any = element
    for _ in range(depth):
        nested = list[nested]
    return msgspec.json.Decoder(nested)


def _flatten(name: str, values: list[Any], shape: Sequence[int]) -> list[Any]:
    """Return the elements of nested lists. Raises Unreadable unless they have the shape."""
    level = values
    for size in shape[1:]:
        if any(len(one) != size for one in level):
            raise Unreadable(f"{name}: expected nested lists of shape {list(shape)}, got others")
        level = list(chain.from_iterable(level))
    return level


def _encoded(name: str, values: list[Any], datatype: str) -> list[Any]:
    if datatype in INTEGERS:
        return _integers(name, values)
    if datatype != BYTES:
        return values
    try:
        return [text.encode() for text in values]
    except UnicodeEncodeError:
        raise InvalidQuery(f"{name}: expected texts in UTF-8, got a lone surrogate") from None


def _integers(name: str, values: list[Any]) -> list[Any]:
    """Return the values as integers. Raises InvalidQuery for one with a fraction."""
    with_point = [value for value in values if type(value) is float]
    for value in with_point:
        if not value.is_integer():
            raise InvalidQuery(f"{name} data: expected integers, got {value}")
    return [int(value) for value in values] if with_point else values


def _requested(one: _Output) -> RequestedOutput:
    count = (one.parameters or {}).get("classification", 0)
    if type(count) is not int or count < 0:
        raise InvalidQuery(f"outputs {one.name[:60]!r}: expected classification as an integer")
    return RequestedOutput(one.name, count)


def _binary_outputs(
    outputs: Sequence[_Output], parameters: Mapping[str, ParameterValue]
) -> BinaryOutputs:
    named = {one.name: (one.parameters or {}).get(BINARY) for one in outputs}
    by_default = parameters.get(BINARY_BY_DEFAULT, False)
    for value in (*named.values(), by_default):
        if value is not None and type(value) is not bool:
            raise InvalidQuery(f"{BINARY}: expected true or false, got something else")
    return BinaryOutputs(
        {name: value for name, value in named.items() if value is not None}, bool(by_default)
    )


def _without_nulls(
    parameters: Mapping[str, ParameterValue | None] | None,
) -> dict[str, ParameterValue]:
    given = (parameters or {}).items()
    return {name: value for name, value in given if value is not None}
