"""Turns the types that other programs write into the few that rows are read from.

The readers of files and streams and the service's bodies use it. Polars writes `string_view`,
dictionaries and lists with 64-bit offsets; DuckDB writes decimals and enums; both may write list
views, and NumPy's users tensors. Each becomes text, plain lists or float64 with the same values.
"""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

Arrow = Any  # any object of pyarrow, which has no types to check against


def plain_type(kind: Arrow, *, decimals: bool = False) -> Arrow:
    """Returns the type that `plain` gives an array of this type; `decimals` become float64."""
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type, decimals=decimals)
    if types.is_dictionary(kind):
        return plain_type(kind.value_type, decimals=decimals)
    if types.is_string_view(kind):
        return pa.large_string()
    if decimals and types.is_decimal(kind):
        return pa.float64()
    if not is_any_list(kind):
        return kind
    value = plain_type(kind.value_type, decimals=decimals)
    if types.is_fixed_size_list(kind):
        # A damaged file may say any size; pyarrow builds no such type, and no reader takes it.
        return pa.list_(value, kind.list_size) if kind.list_size > 0 else kind
    large = types.is_large_list(kind) or types.is_large_list_view(kind)
    return pa.large_list(value) if large else pa.list_(value)


def plain(array: Arrow, *, decimals: bool = False) -> Arrow:
    """Returns the same values as `plain_type`. The array must be valid."""
    kind, types = array.type, pa.types
    if _equal(kind, plain_type(kind, decimals=decimals)):
        return array
    if isinstance(kind, pa.BaseExtensionType):
        return plain(array.storage, decimals=decimals)
    if types.is_dictionary(kind):
        return plain(array.dictionary, decimals=decimals).take(array.indices)
    if not is_any_list(kind):
        return array.cast(plain_type(kind, decimals=decimals))
    return _plain_list(array, decimals=decimals)


def plain_batch(batch: Arrow, numbers: Collection[str]) -> Arrow:
    """Returns a batch with columns of plain types; decimals of the columns `numbers` are floats."""
    names = batch.schema.names
    if all(_equal(one.type, plain_type(one.type, decimals=one.name in numbers))
           for one in batch.schema):  # fmt: skip
        return batch
    arrays = [
        plain(array, decimals=name in numbers)
        for name, array in zip(names, batch.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, names=names)


def plain_schema(schema: Arrow, numbers: Collection[str]) -> Arrow:
    """Returns the schema of `plain_batch`."""
    return pa.schema([
        (field.name, plain_type(field.type, decimals=field.name in numbers)) for field in schema
    ])  # fmt: skip


def plain_chunks(chunks: Sequence[Arrow], kind: Arrow, *, decimals: bool = False) -> Arrow:
    """Returns chunks of a column of type `kind` as one array."""
    arrays = [plain(chunk, decimals=decimals) for chunk in chunks]
    if not arrays:
        return pa.array([], type=plain_type(kind, decimals=decimals))
    return arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays)


def _plain_list(array: Arrow, *, decimals: bool) -> Arrow:
    kind, types = array.type, pa.types
    mask = array.is_null()
    if types.is_list_view(kind) or types.is_large_list_view(kind):
        # pyarrow's own cast, tried in version 26, makes invalid arrays.
        large = types.is_large_list_view(kind)
        lengths = np.array(array.value_lengths().fill_null(0))
        ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64 if large else np.int32)
        made = pa.LargeListArray if large else pa.ListArray
        values = plain(array.flatten(), decimals=decimals)
        return made.from_arrays(pa.array(ends), values, mask=mask)
    if types.is_fixed_size_list(kind):
        size = kind.list_size
        values = array.values.slice(array.offset * size, len(array) * size)
        values = plain(values, decimals=decimals)
        return pa.FixedSizeListArray.from_arrays(values, size, mask=mask)
    made = pa.LargeListArray if types.is_large_list(kind) else pa.ListArray
    offsets = np.array(array.offsets)  # a copy: a mask needs offsets without an offset
    first, last = (int(offsets[0]), int(offsets[-1])) if len(array) else (0, 0)
    values = plain(array.values.slice(first, last - first), decimals=decimals)
    return made.from_arrays(pa.array(offsets - first), values, mask=mask)


def is_any_list(kind: Arrow) -> bool:
    """Returns True for lists of all kinds, views among them."""
    types = pa.types
    return bool(
        types.is_list(kind)
        or types.is_large_list(kind)
        or types.is_fixed_size_list(kind)
        or types.is_list_view(kind)
        or types.is_large_list_view(kind)
    )


def _equal(kind: Arrow, other: Arrow) -> bool:
    """True if the types are equal except for the names of lists' fields."""
    if is_any_list(kind) and is_any_list(other) and kind.id == other.id:
        sizes = pa.types.is_fixed_size_list(kind) and kind.list_size != other.list_size
        return not sizes and _equal(kind.value_type, other.value_type)
    return bool(kind == other)
