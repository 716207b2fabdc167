"""Writes the body of an inference response: JSON, and raw tensors behind it."""

from collections.abc import Iterator
from typing import Any

import orjson

from hsoftmax.service.codecs.json import encode, encode_array
from hsoftmax.service.http.content_types import Format
from hsoftmax.service.http.request_context import Headers
from hsoftmax.service.inference.encoders import PIECE_VALUES
from hsoftmax.service.inference.tensors.request import InferResult
from hsoftmax.service.inference.tensors.tensor import Tensor, encode_raw, raw_size

from .request_body import BINARY_SIZE, HEADER_LENGTH, BinaryOutputs

_JSON_TYPE = (b"content-type", Format.JSON.encode())
_RAW_TYPE = (b"content-type", b"application/octet-stream")


def json_pieces(result: InferResult, binary: BinaryOutputs) -> Iterator[bytes]:
    """Yield the JSON of a response in pieces, each of at most some thousand numbers."""
    yield encode(_fields(result))[:-1] + b',"outputs":['
    for i, tensor in enumerate(result.outputs):
        yield b"," if i else b""
        yield from _output_pieces(tensor, raw=binary.has(tensor.name))
    yield b"]}"


def raw_pieces(result: InferResult, binary: BinaryOutputs) -> Iterator[bytes]:
    """Yield the raw tensors of a response in order."""
    for tensor in result.outputs:
        if binary.has(tensor.name):
            for part in _parts(tensor):
                yield encode_raw(part)


def response_headers(json_length: int, raw_length: int, *, has_raw: bool) -> Headers:
    """Return the headers of a response of these lengths."""
    length = (b"content-length", b"%d" % (json_length + raw_length))
    if not has_raw:
        return [_JSON_TYPE, length]
    return [_RAW_TYPE, length, (HEADER_LENGTH, b"%d" % json_length)]


def _fields(result: InferResult) -> dict[str, Any]:
    fields: dict[str, Any] = {"model_name": result.model, "model_version": result.version}
    if result.id:
        fields["id"] = result.id
    if result.parameters:
        fields["parameters"] = result.parameters
    return fields


def _output_pieces(tensor: Tensor, *, raw: bool) -> Iterator[bytes]:
    fields: dict[str, Any] = {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": tensor.shape,
    }
    if raw:
        yield encode({**fields, "parameters": {BINARY_SIZE: raw_size(tensor)}})
        return
    yield encode(fields)[:-1] + b',"data":['
    for i, part in enumerate(_parts(tensor)):
        yield b"," if i else b""
        yield _encoded_values(part.data)[1:-1]
    yield b"]}"


def _encoded_values(data: Any) -> bytes:  # noqa: ANN401
    if isinstance(data, list):
        return orjson.dumps([element.decode() for element in data])
    return encode_array(data.reshape(-1))


def _parts(tensor: Tensor) -> Iterator[Tensor]:
    """Yield the flat elements in parts that take about a millisecond to write."""
    data = tensor.data if isinstance(tensor.data, list) else tensor.data.reshape(-1)
    if len(data) <= PIECE_VALUES:
        yield tensor
        return
    for start in range(0, len(data), PIECE_VALUES):
        part = data[start : start + PIECE_VALUES]
        yield Tensor(tensor.name, tensor.datatype, (len(part),), part)
