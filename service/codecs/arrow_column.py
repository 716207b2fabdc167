"""Copies a column of an Arrow body into one array of a plain type, within a number of bytes.

Rows may share bytes: dictionaries and views name one long text in a few bytes each. So the bytes of
all rows are counted before any is copied.
"""

from typing import Any

from hsoftmax.service.errors import TooLarge


def plain_column(name: str, column: Any, max_bytes: int) -> Any:  # noqa: ANN401  pyarrow has no types
    """Return a valid column as one array of a type that rows are read from.

    Raises:
        TooLarge: all rows together have more than `max_bytes`.
    """
    from hsoftmax.scoring.formats.arrow_sizes import column_size  # it imports pyarrow
    from hsoftmax.scoring.formats.arrow_types import plain_chunks

    size = column_size(column.chunks)
    if size > max_bytes:
        raise TooLarge(f"{name}: expected rows of at most {max_bytes} bytes in all, got {size:.0f}")
    return plain_chunks(column.chunks, column.type, decimals=True)
