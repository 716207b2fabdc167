"""Reads a column of texts, or of lists of words, from an Arrow body.

Rows may share bytes: dictionaries and string views name one long text in a few bytes each. So the
bytes of all rows are counted before any row becomes a Python object.
"""

from typing import Any

import numpy as np

from hsoftmax.models.arrays import Int64
from hsoftmax.service.errors import InvalidQuery, TooLarge

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
    from hsoftmax.scoring.formats.arrow_types import plain_chunks  # it imports pyarrow

    size = sum(_num_bytes(pa, chunk) for chunk in column.chunks)
    if size > max_bytes:
        raise TooLarge(f"inputs: expected texts of at most {max_bytes} bytes in all, got {size}")
    rows: list[Any] = plain_chunks(column.chunks, column.type).to_pylist()
    for i, row in enumerate(rows):
        if row is None or (isinstance(row, list) and None in row):
            raise InvalidQuery(f"inputs row {i}: expected a text or a list of words, got null")
    return rows


def _is_text(pa: Any, kind: Any) -> bool:  # noqa: ANN401
    types = pa.types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _num_bytes(pa: Any, array: Any) -> int:  # noqa: ANN401
    """Return the bytes of all texts of an array, each as often as a row has it."""
    if pa.types.is_dictionary(array.type):
        indices = array.indices.drop_null().to_numpy(zero_copy_only=False)
        return int(_lengths(pa, array.dictionary)[indices].sum())
    if not _is_text(pa, array.type):
        words = array.flatten()
        if len(words) > _MAX_WORDS:
            raise TooLarge(f"inputs: expected at most {_MAX_WORDS} words, got {len(words)}")
        return _num_bytes(pa, words)
    return int(_lengths(pa, array).sum())


def _lengths(pa: Any, texts: Any) -> Int64:  # noqa: ANN401
    """Return the bytes of each text; 0 for a null."""
    import pyarrow.compute as pc

    if not pa.types.is_string_view(texts.type):
        lengths = pc.binary_length(texts).fill_null(0).to_numpy(zero_copy_only=False)
        return np.asarray(lengths, dtype=np.int64)
    # A view is four numbers of 32 bits, of which the first is the length.
    views = np.frombuffer(texts.buffers()[1], dtype=np.int32).reshape(-1, 4)
    return views[texts.offset : texts.offset + len(texts), 0].astype(np.int64)
