"""JSON in and out: bytes to a typed query, and an answer's arrays to bytes.

msgspec decodes by type in one pass, without numbers from strings or booleans, and names the place
of what does not fit; orjson writes NumPy arrays without making Python numbers of them.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
import orjson

from hsoftmax.models.arrays import Array
from hsoftmax.service.errors import InvalidQuery, Malformed

T = TypeVar("T")

_TYPE_NAMES = {
    "float": "a number",
    "int": "an integer",
    "str": "a string",
    "bool": "a boolean",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_ANY_JSON = msgspec.json.Decoder(msgspec.Raw)
_MESSAGE = re.compile(r"(?P<what>.*?)(?: - at `\$(?P<path>[^`]*)`)?", re.DOTALL)
_EXPECTED = re.compile(r"Expected `(?P<wanted>[^`]+)`, got `(?P<got>[^`]+)`")
_NOT_FINITE = re.compile(rb"\b(?:NaN|Infinity)\b")


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """The body as the decoder's type.

    Raises:
        Malformed: not JSON.
        InvalidQuery: JSON of another form; the sentence says where.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        _expect_json(body)  # the decoder stopped where the form was wrong
        raise InvalidQuery(error_message(str(error), decoder.type)) from None
    except (msgspec.DecodeError, RecursionError):
        _expect_json(body)
        raise Malformed("body: expected JSON, got something else") from None


def encode(answer: Mapping[str, object]) -> bytes:
    """The answer as JSON; arrays as (nested) lists, numbers that are not finite as null."""
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def encode_array(values: Array) -> bytes:
    """Numbers in (nested) lists; those that are not finite as null."""
    return orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)


def json_path_in_words(path: str) -> str:
    """msgspec's path in words: `.inputs[0][2]` is "inputs row 0, position 2"."""
    name, *indices = re.split(r"\[|\]\[|\]", path.lstrip("."))
    words = [f"{word} {index}" for word, index in zip(("row", "position"), indices, strict=False)]
    shown = [word for word in words if word[-1].isdigit()]
    return " ".join([name, ", ".join(shown)]).strip() or "body"


def error_message(message: str, expected_type: Any) -> str:  # noqa: ANN401  a type, as msgspec holds it
    """What msgspec says of a value that is not as `wanted`, in our words."""
    match = _MESSAGE.fullmatch(message)
    problem, path = (match["what"], match["path"] or "") if match else (message, "")
    if expected := _EXPECTED.search(problem):
        expected_types = [_TYPE_NAMES.get(name, name) for name in expected["wanted"].split(" | ")]
        got = _TYPE_NAMES.get(expected["got"], expected["got"])
        return f"{json_path_in_words(path)}: expected {' or '.join(expected_types)}, got {got}"
    if missing := re.search(r"missing required field `([^`]+)`", problem):
        return f"{missing[1]}: expected a value, got none"
    if unknown := re.search(r"unknown field `([^`]*)`", problem):
        fields = ", ".join(field.encode_name for field in msgspec.structs.fields(expected_type))
        return f"unknown field {unknown[1][:60]!r}: expected {fields}"
    if problem == "Number out of range":
        return f"{json_path_in_words(path)}: expected a finite number, got one beyond float64"
    return f"{json_path_in_words(path)}: {problem[:1].lower()}{problem[1:]}"


def _expect_json(body: bytes) -> None:
    """Raise Malformed, or InvalidQuery if NaN or Infinity is all that is wrong."""
    try:
        _ANY_JSON.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        _expect_finite(body)
        reason = str(error).removeprefix("JSON is malformed: ")
        reason = reason.replace("Input data was truncated", "it ends too early")
        raise Malformed(f"body: expected JSON, which this is not: {reason}") from None


def _expect_finite(body: bytes) -> None:
    """Raise InvalidQuery if the body would be JSON but for NaN and Infinity."""
    if not _NOT_FINITE.search(body):
        return
    try:
        query = json.loads(body)
    except (ValueError, RecursionError):
        return
    raise InvalidQuery(f"{_first_not_finite(query)}: expected finite numbers, got NaN or Infinity")


def _first_not_finite(query: object) -> str:
    """The place of the first NaN or infinity in the rows of `inputs`, or else the body."""
    rows = query.get("inputs") if isinstance(query, dict) else None
    for i, row in enumerate(rows if isinstance(rows, list) else []):
        for j, value in enumerate(row if isinstance(row, list) else []):
            if isinstance(value, float) and not math.isfinite(value):
                return json_path_in_words(f".inputs[{i}][{j}]")
    return "body"
