"""Builds queries from bodies of .npy or Arrow, whose other fields are URL parameters.

A JSON body has all fields itself, so their names are refused in its URL.
"""

from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

import msgspec

from hsoftmax.models.arrays import Array
from hsoftmax.scoring.numbers import parse_integer
from hsoftmax.service.codecs.json import error_message
from hsoftmax.service.errors import InvalidQuery

_MAX_PARAMETERS = 100_000  # the server bounds the length of a URL before
_TARGETS = b"targets="


def build_query(  # an instance of query_type
    query_type: Any,  # noqa: ANN401  a type, which mypy does not know to be hashable
    inputs: Array | list[Any],
    targets: list[Any] | None,
    query_string: bytes,
) -> Any:  # noqa: ANN401
    """Build a query from the inputs and the targets of a body, and the URL parameters.

    `?targets=3,17&targets=5` are lists, one for each row; a single `?targets=3,5` for several rows
    is one target for each.

    Raises:
        InvalidQuery: a parameter is not known, given twice, or of another type.
    """
    rest, texts = _split_targets(query_string)
    if texts:
        if targets is not None:
            raise InvalidQuery("targets: expected in the body or in the URL, got both")
        targets = _parse_targets(texts, len(inputs))
    query = _parse(query_type, rest, targets is not None)
    changed: dict[str, Any] = {"inputs": inputs}
    if targets is not None:
        changed["targets"] = targets
    return msgspec.structs.replace(query, **changed)


def expect_no_fields(query_type: Any, query_string: bytes) -> None:  # noqa: ANN401
    """Raise InvalidQuery if a parameter of the URL has the name of a field of a JSON body."""
    fields = {field.encode_name for field in msgspec.structs.fields(query_type)}
    given = parse_qsl(query_string.decode("latin-1"), True, max_num_fields=_MAX_PARAMETERS)
    for name, _ in given:
        if name in fields:
            raise InvalidQuery(
                f"{name}: expected in the JSON body, got it in the URL: "
                f'write "{name}" beside "{_first_field(query_type)}"'
            )


def _first_field(query_type: Any) -> str:  # noqa: ANN401
    """Return the name of the field that every body has."""
    required = (field for field in msgspec.structs.fields(query_type) if field.required)
    return next(required).encode_name


def _split_targets(query_string: bytes) -> tuple[bytes, list[str]]:
    """Split the query string into the other parameters and the targets.

    A client repeats the others in each request, so their parsing is cached; targets differ.
    """
    if _TARGETS not in query_string:
        return query_string, []
    rest: list[bytes] = []
    texts: list[str] = []
    for part in query_string.split(b"&"):
        if part.startswith(_TARGETS):
            texts.append(unquote_plus(part[len(_TARGETS) :].decode("latin-1")))
        else:
            rest.append(part)
    return b"&".join(rest), texts


@lru_cache(maxsize=64)
def _parse(query_type: Any, query_string: bytes, with_targets: bool) -> Any:  # noqa: ANN401
    """Parse the query without its inputs and targets."""
    fields: dict[str, Any] = {"inputs": []} | ({"targets": []} if with_targets else {})
    given = parse_qsl(query_string.decode("latin-1"), True, max_num_fields=_MAX_PARAMETERS)
    for name, value in given:
        if name in fields:
            raise InvalidQuery(f"{name[:60]}: expected once, got it again")
        fields[name] = value
    try:
        return msgspec.convert(fields, query_type, strict=False)
    except Exception as error:  # the decoder's, of any type
        raise InvalidQuery(error_message(str(error), query_type)) from None


def _parse_targets(texts: list[str], rows: int) -> list[Any]:
    lists = [[_parse_target(one) for one in text.split(",") if one] for text in texts]
    return lists[0] if len(lists) == 1 and rows > 1 else lists


def _parse_target(text: str) -> int | str:
    """The target as a number if it is an integer, else as a label."""
    number = parse_integer(text)
    return text if number is None else number
