"""JSON decoding to typed queries, and JSON encoding of responses with arrays.

msgspec decodes to a type in one pass, takes no numbers from strings or booleans, and names the
place of a value of a wrong type. orjson encodes NumPy arrays without building Python numbers.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
import orjson

from hsoftmax.bundle import UTF8_MARK, other_encoding
from hsoftmax.models.arrays import Array
from hsoftmax.service.errors import InvalidQuery, Malformed
from hsoftmax.service.suggestions import did_you_mean

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
_LIST_HINT = ': put it in a list, {"inputs": ["..."]}'
_ANY_JSON = msgspec.json.Decoder(msgspec.Raw)
_MESSAGE = re.compile(r"(?P<problem>.*?)(?: - at `\$(?P<path>[^`]*)`)?", re.DOTALL)
_EXPECTED = re.compile(r"Expected `(?P<types>[^`]+)`, got `(?P<got>[^`]+)`")
_NOT_FINITE = re.compile(rb"\b(?:NaN|Infinity)\b")


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Decode the body to the decoder's type.

    Raises:
        Malformed: not JSON.
        InvalidQuery: JSON of another type; the message names the place.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        _expect_json(body)  # the decoder stops at a wrong type, before later syntax errors
        raise InvalidQuery(error_message(str(error), decoder.type)) from None
    except Exception:  # the decoder's, of any type
        if body.startswith(UTF8_MARK):
            return decode(decoder, body.removeprefix(UTF8_MARK))
        _expect_utf8(body)
        _expect_json(body)
        raise Malformed("body: expected JSON, got something else") from None


def encode(answer: Mapping[str, object]) -> bytes:
    """Encode the response: arrays as (nested) lists, numbers that are not finite as null."""
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def encode_array(values: Array) -> bytes:
    """Encode an array as (nested) lists, numbers that are not finite as null."""
    return orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)


def json_path_in_words(path: str) -> str:
    """Translate a path of msgspec: `.inputs[0][2]` is "inputs row 0, position 2"."""
    name, *indices = re.split(r"\[|\]\[|\]", path.lstrip("."))
    words = [f"{word} {index}" for word, index in zip(("row", "position"), indices, strict=False)]
    shown = [word for word in words if word[-1].isdigit()]
    return " ".join([name, ", ".join(shown)]).strip() or "body"


def error_message(message: str, expected_type: Any) -> str:  # noqa: ANN401  a type
    """Translate msgspec's message on a value that does not match `expected_type`."""
    match = _MESSAGE.fullmatch(message)
    problem, path = (match["problem"], match["path"] or "") if match else (message, "")
    if expected := _EXPECTED.search(problem):
        expected_types = [_TYPE_NAMES.get(name, name) for name in expected["types"].split(" | ")]
        got = _TYPE_NAMES.get(expected["got"], expected["got"])
        hint = _LIST_HINT if (path, expected["got"]) == (".inputs", "str") else ""
        return (
            f"{json_path_in_words(path)}: expected {' or '.join(expected_types)}, got {got}{hint}"
        )
    if missing := re.search(r"missing required field `([^`]+)`", problem):
        return f"{missing[1]}: expected a value, got none"
    if unknown := re.search(r"unknown field `([^`]*)`", problem):
        fields = [field.encode_name for field in msgspec.structs.fields(expected_type)]
        hint = did_you_mean(unknown[1], fields)
        return f"unknown field {unknown[1][:60]!r}: expected {', '.join(fields)}{hint}"
    if problem == "Number out of range":
        return f"{json_path_in_words(path)}: expected a finite number, got one beyond float64"
    return f"{json_path_in_words(path)}: {problem[:1].lower()}{problem[1:]}"


def _expect_utf8(body: bytes) -> None:
    """Raise Malformed if the first bytes say that the body has another encoding."""
    if other := other_encoding(body[:4]):
        raise Malformed(f"body: expected JSON in UTF-8, got {other}")


def _expect_json(body: bytes) -> None:
    """Raise Malformed if the body is not JSON, or InvalidQuery for NaN or Infinity."""
    try:
        _ANY_JSON.decode(body)  # it checks the syntax, but not the text of strings
    except Exception as error:  # the decoder's, of any type
        _expect_finite(body)
        reason = str(error).removeprefix("JSON is malformed: ")
        reason = reason.replace("Input data was truncated", "it ends too early")
        raise Malformed(f"body: expected JSON, which this is not: {reason}") from None
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(
            f"body: expected JSON in UTF-8, got byte {error.start} that is not"
        ) from None


def _expect_finite(body: bytes) -> None:
    """Raise InvalidQuery if the body is JSON except for NaN and Infinity."""
    if not _NOT_FINITE.search(body):
        return
    try:
        query = json.loads(body)
    except Exception:  # the decoder's, of any type
        return
    raise InvalidQuery(f"{_first_not_finite(query)}: expected finite numbers, got NaN or Infinity")


def _first_not_finite(query: object) -> str:
    """The place of the first NaN or infinity in the rows of `inputs`, by default the body."""
    rows = query.get("inputs") if isinstance(query, dict) else None
    for i, row in enumerate(rows if isinstance(rows, list) else []):
        for j, value in enumerate(row if isinstance(row, list) else []):
            if isinstance(value, float) and not math.isfinite(value):
                return json_path_in_words(f".inputs[{i}][{j}]")
    return "body"
