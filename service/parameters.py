"""Queries whose matrix is a body of its own: the other fields come as URL parameters."""

from typing import Any
from urllib.parse import parse_qsl

import msgspec

from models.arrays import Array

from .errors import InvalidQuery
from .wire import sentence

_MOST = 100_000  # parameters; a URL is bounded before


def query_of(form: type[Any], matrix: Array, targets: list[Any] | None, query_string: bytes) -> Any:  # noqa: ANN401  a query of the given form
    """The query of this form that body and URL make together.

    `?targets=3,17&targets=5` are lists, one for each row; a single `?targets=3,5` for several rows
    is one target for each.

    Raises:
        InvalidQuery: a parameter that is not known, given twice, or of another type.
    """
    fields: dict[str, Any] = {"inputs": []}
    texts: list[str] = []
    given = parse_qsl(query_string.decode("latin-1"), True, max_num_fields=_MOST)
    for name, value in given:
        if name == "targets":
            texts.append(value)
        elif name in fields:
            raise InvalidQuery(f"{name[:60]}: expected once, got it again")
        else:
            fields[name] = value
    if texts:
        if targets is not None:
            raise InvalidQuery("targets: expected in the body or in the URL, got both")
        targets = _targets(texts, len(matrix))
    if targets is not None:
        fields["targets"] = []
    try:
        query = msgspec.convert(fields, form, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidQuery(sentence(str(error), form)) from None
    changed: dict[str, Any] = {"inputs": matrix}
    if targets is not None:
        changed["targets"] = targets
    return msgspec.structs.replace(query, **changed)


def _targets(texts: list[str], rows: int) -> list[Any]:
    lists = [[_target(one) for one in text.split(",") if one] for text in texts]
    return lists[0] if len(lists) == 1 and rows > 1 else lists


def _target(text: str) -> int | str:
    return int(text) if text.removeprefix("-").isdecimal() and len(text) < 20 else text
