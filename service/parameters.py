"""Queries whose matrix is a body of its own: the other fields come as URL parameters."""

from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from models.arrays import Array

from .errors import InvalidQuery
from .wire import sentence

_MOST = 100_000  # parameters; a URL is bounded before


def query_of(  # a query of the given form
    form: Any,  # noqa: ANN401  a type, which mypy does not know to be hashable
    matrix: Array,
    targets: list[Any] | None,
    query_string: bytes,
) -> Any:  # noqa: ANN401
    """The query of this form that body and URL make together.

    `?targets=3,17&targets=5` are lists, one for each row; a single `?targets=3,5` for several rows
    is one target for each.

    Raises:
        InvalidQuery: a parameter that is not known, given twice, or of another type.
    """
    query, texts = _parsed(form, query_string, targets is not None)
    if texts:
        if targets is not None:
            raise InvalidQuery("targets: expected in the body or in the URL, got both")
        targets = _targets(texts, len(matrix))
    changed: dict[str, Any] = {"inputs": matrix}
    if targets is not None:
        changed["targets"] = targets
    return msgspec.structs.replace(query, **changed)


@lru_cache(maxsize=64)  # of one client, all are usually the same
def _parsed(form: Any, query_string: bytes, with_targets: bool) -> tuple[Any, list[str]]:  # noqa: ANN401  as above
    """The query without inputs and targets, and the targets' texts."""
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
    if texts or with_targets:
        fields["targets"] = []
    try:
        return msgspec.convert(fields, form, strict=False), texts
    except msgspec.ValidationError as error:
        raise InvalidQuery(sentence(str(error), form)) from None


def _targets(texts: list[str], rows: int) -> list[Any]:
    lists = [[_target(one) for one in text.split(",") if one] for text in texts]
    return lists[0] if len(lists) == 1 and rows > 1 else lists


def _target(text: str) -> int | str:
    return int(text) if text.removeprefix("-").isdecimal() and len(text) < 20 else text
