"""Converts the protocol's messages to requests of tensors, and results to messages.

A request has all tensors raw or all as typed contents, never both, and its answer has the same
form. FP16 and BF16 have no typed form.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import numpy as np

from hsoftmax.service.errors import InvalidQuery, TooLarge, Unreadable
from hsoftmax.service.inference.tensors.datatypes import BF16, BYTES, FP16, expect_datatype
from hsoftmax.service.inference.tensors.request import (
    InferRequest,
    InferResult,
    ParameterValue,
    RequestedOutput,
    distinct_names,
)
from hsoftmax.service.inference.tensors.tensor import Tensor, decode_raw, encode_raw, from_values
from hsoftmax.service.settings import Settings

from .messages import Message, ModelInferResponse

_MAX_INPUTS = 64
_RAW_OUTPUT = "binary_data_output"  # asks for raw tensors, as over HTTP
_SHARED_MEMORY = "shared_memory_region"

# The field of InferTensorContents with the elements of each datatype.
_FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}


def read_request(
    message: Message, read_inputs: Callable[[], Awaitable[Mapping[str, Tensor]]]
) -> InferRequest:
    """Convert a ModelInferRequest but for its tensors, which `read_inputs` reads.

    Raises:
        InvalidQuery: too many inputs, one given twice, or a parameter without a value.
    """
    if len(message.inputs) > _MAX_INPUTS:
        raise InvalidQuery(f"inputs: expected at most {_MAX_INPUTS}, got {len(message.inputs)}")
    return InferRequest(
        model=message.model_name,
        input_names=distinct_names([one.name for one in message.inputs]),
        read_inputs=read_inputs,
        outputs=tuple(_requested_output(output) for output in message.outputs),
        parameters=_parameters(message.parameters, "parameters"),
        version=message.model_version or None,
        id=message.id,
    )


def read_tensors(message: Message, settings: Settings) -> dict[str, Tensor]:
    """Return the inputs of a ModelInferRequest by name.

    Raises:
        ServiceError: its tensors have no form, or two, or a form that they cannot have.
    """
    read = _raw_tensors if is_raw(message) else _typed_tensors
    return {tensor.name: tensor for tensor in read(message, settings)}


def max_texts(settings: Settings) -> int:
    """Return the most elements of a BYTES tensor: a text of each row, and labels of targets."""
    return settings.max_rows + settings.max_targets


def is_raw(message: Message) -> bool:
    """Return True if the inputs of a request are raw."""
    return bool(message.raw_input_contents)


def write_result(result: InferResult, request: Message) -> Message:
    """Convert a result to a ModelInferResponse in the form of its request."""
    raw = is_raw(request) or _asks_for_raw(request)
    response = ModelInferResponse(
        model_name=result.model, model_version=result.version, id=result.id
    )
    write_parameters(response.parameters, result.parameters)
    for tensor in result.outputs:
        output = response.outputs.add(
            name=tensor.name, datatype=tensor.datatype, shape=tensor.shape
        )
        if raw:
            response.raw_output_contents.append(encode_raw(tensor))
        else:
            getattr(output.contents, _field(tensor.name, tensor.datatype)).extend(_elements(tensor))
    return response


def _asks_for_raw(message: Message) -> bool:
    fields = message.parameters  # reading a name that it does not have would add it
    return _RAW_OUTPUT in fields and bool(fields[_RAW_OUTPUT].bool_param)


def write_parameters(fields: Message, parameters: Mapping[str, ParameterValue]) -> None:
    """Write parameters into the map of a message."""
    for name, value in parameters.items():
        match value:
            case bool():
                fields[name].bool_param = value
            case int():
                fields[name].int64_param = value
            case float():
                fields[name].double_param = value
            case str():
                fields[name].string_param = value


def _raw_tensors(message: Message, settings: Settings) -> list[Tensor]:
    contents = message.raw_input_contents
    if len(contents) != len(message.inputs):
        raise Unreadable(
            f"raw_input_contents: expected one for each of {len(message.inputs)} inputs, "
            f"got {len(contents)}"
        )
    for one in message.inputs:
        _expect_no_shared_memory(one)
        if one.HasField("contents"):
            raise Unreadable(f"{one.name[:60]}: expected raw_input_contents or contents, got both")
    return [
        decode_raw(one.name[:60], one.datatype, one.shape, content, max_texts=max_texts(settings))
        for one, content in zip(message.inputs, contents, strict=True)
    ]


def _typed_tensors(message: Message, settings: Settings) -> Iterable[Tensor]:
    for one in message.inputs:
        _expect_no_shared_memory(one)
        name = one.name[:60]
        expect_datatype(name, one.datatype)
        field = _field(name, one.datatype)
        for other, _ in one.contents.ListFields():
            if other.name != field:
                raise Unreadable(f"{name}: expected {field} of {one.datatype}, got {other.name}")
        elements = getattr(one.contents, field)
        limit = max_texts(settings)
        if one.datatype == BYTES and len(elements) > limit:
            raise TooLarge(
                f"{name}: expected at most {limit} elements of BYTES, got {len(elements)}"
            )
        yield from_values(name, one.datatype, one.shape, elements[:])


def _field(name: str, datatype: str) -> str:
    if datatype in (FP16, BF16):
        raise InvalidQuery(f"{name[:60]}: expected raw_input_contents of {datatype}, got contents")
    return _FIELDS[datatype]


def _elements(tensor: Tensor) -> Any:  # noqa: ANN401
    if isinstance(tensor.data, list):
        return tensor.data
    return np.ravel(tensor.data).tolist()


def _requested_output(output: Message) -> RequestedOutput:
    _expect_no_shared_memory(output)
    parameters = _parameters(output.parameters, f"outputs.{output.name[:60]}")
    return RequestedOutput(output.name, _classification(output.name, parameters))


def _classification(name: str, parameters: Mapping[str, ParameterValue]) -> int:
    value = parameters.get("classification", 0)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidQuery(
            f"outputs.{name[:60]}.classification: expected a number of classes, got {value!r:.60}"
        )
    return value


def _parameters(fields: Message, path: str) -> dict[str, ParameterValue]:
    return {name: _parameter(field, f"{path}.{name[:60]}") for name, field in fields.items()}


def _parameter(field: Message, path: str) -> ParameterValue:
    choice = field.WhichOneof("parameter_choice")
    if choice is None:
        raise InvalidQuery(f"{path}: expected a value, got none")
    value: ParameterValue = getattr(field, choice)
    return value


def _expect_no_shared_memory(tensor: Message) -> None:
    if _SHARED_MEMORY in tensor.parameters:
        raise InvalidQuery(
            f"{tensor.name[:60]}: expected the tensor in the message, got shared memory"
        )
