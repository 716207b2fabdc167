"""Queries whose matrix is a body of its own: the other fields come as URL parameters."""

from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

import msgspec

from hsoftmax.models.arrays import Array
from hsoftmax.service.codecs.json import sentence
from hsoftmax.service.errors import InvalidQuery

_MOST = 100_000  # parameters; a URL is bounded before
_TARGETS = b"targets="


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
    rest, texts = _parted(query_string)
    if texts:
        if targets is not None:
            raise InvalidQuery("targets: expected in the body or in the URL, got both")
        targets = _targets(texts, len(matrix))
    query = _parsed(form, rest, targets is not None)
    changed: dict[str, Any] = {"inputs": matrix}
    if targets is not None:
        changed["targets"] = targets
    return msgspec.structs.replace(query, **changed)


def _parted(query_string: bytes) -> tuple[bytes, list[str]]:
    """What a client says each time, and the targets, which are rarely the same twice."""
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
def _parsed(form: Any, query_string: bytes, with_targets: bool) -> Any:  # noqa: ANN401  as above
    """The query without inputs and targets."""
    fields: dict[str, Any] = {"inputs": []} | ({"targets": []} if with_targets else {})
    given = parse_qsl(query_string.decode("latin-1"), True, max_num_fields=_MOST)
    for name, value in given:
        if name in fields:
            raise InvalidQuery(f"{name[:60]}: expected once, got it again")
        fields[name] = value
    try:
        return msgspec.convert(fields, form, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidQuery(sentence(str(error), form)) from None


def _targets(texts: list[str], rows: int) -> list[Any]:
    lists = [[_target(one) for one in text.split(",") if one] for text in texts]
    return lists[0] if len(lists) == 1 and rows > 1 else lists


def _target(text: str) -> int | str:
    return int(text) if text.removeprefix("-").isdecimal() and len(text) < 20 else text
