"""Defines a number in text: what JSON takes for one, in every reader of text.

Cells of CSV and URL parameters use it, and JSON's own decoders agree with it. Python's `int` and
`float` take more: `1_0`, `+3`, ` 5`, `007`, `٣`, `.5`, `nan`. Such texts are labels, or errors.
"""

import re
from collections.abc import Sequence

import msgspec

_MAX_INTEGER_DIGITS = 18  # always within int64
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_NUMBER = re.compile(_INTEGER.pattern + r"(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_LIST = msgspec.json.Decoder(list[float])


def parse_integer(text: str) -> int | None:
    """Returns the integer, or None if the text is no integer, or one of more than 18 digits."""
    if len(text) > _MAX_INTEGER_DIGITS + 1 or _INTEGER.fullmatch(text) is None:
        return None
    number = int(text)
    return number if abs(number) < 10**_MAX_INTEGER_DIGITS else None


def parse_number(text: str) -> float | None:
    """Returns the number, infinite if it is beyond float64, or None if the text is no number."""
    return None if _NUMBER.fullmatch(text) is None else float(text)


def parse_numbers(texts: Sequence[str]) -> list[float] | None:
    """Returns the numbers, or None if one of the texts is no number, or is beyond float64.

    White space around a number means nothing, as in a list of JSON.
    """
    try:
        numbers = _LIST.decode(f"[{','.join(texts)}]")
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return numbers if len(numbers) == len(texts) else None
