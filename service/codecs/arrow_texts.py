"""Reads a column of texts, or of lists of words, from an Arrow body."""

from typing import Any

from hsoftmax.service.errors import InvalidQuery, TooLarge

from .arrow_column import plain_column

_MAX_WORDS = 2**17  # of all lists of a body, as in JSON


def is_texts(pa: Any, kind: Any) -> bool:  # noqa: ANN401  pyarrow has no types
    """Return True for texts of any kind, also in a dictionary, and for lists of texts."""
    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _is_text(pa, kind.value_type)
    return _is_text(pa, kind.value_type if types.is_dictionary(kind) else kind)


def read_texts(pa: Any, column: Any, max_bytes: int) -> list[Any]:  # noqa: ANN401
    """Return the rows of a column for which `is_texts` is true.

    Raises:
        InvalidQuery: a row is null, or one of its words.
        TooLarge: all rows together have more than `max_bytes`, or too many words.
    """
    if not _is_text(pa, column.type) and not pa.types.is_dictionary(column.type):
        words = sum(len(chunk.flatten()) for chunk in column.chunks)
        if words > _MAX_WORDS:
            raise TooLarge(f"inputs: expected at most {_MAX_WORDS} words, got {words}")
    rows: list[Any] = plain_column("inputs", column, max_bytes).to_pylist()
    for i, row in enumerate(rows):
        if row is None or (isinstance(row, list) and None in row):
            raise InvalidQuery(f"inputs row {i}: expected a text or a list of words, got null")
    return rows


def _is_text(pa: Any, kind: Any) -> bool:  # noqa: ANN401
    types = pa.types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))
