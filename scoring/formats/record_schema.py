"""The schema of the records of an output, which is the same for all of its shards."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hsoftmax.models.arrays import Array
from hsoftmax.scoring.results import Column, RaggedColumn
from hsoftmax.scoring.task import RecordField, ValueKind

_MAX_LISTED_VALUES = 16  # of a row; from about 50 on, an array is written sooner than a list


@dataclass(frozen=True, slots=True)
class RecordSchema:
    """The fields of a record. The service stores it with a job, so these names are fixed.

    Attributes:
        fields: all fields except the id and those of an error
        id_kind: type of the id, in formats that have one type for a column
        width: the length of the lists, if it is the same for every row
        id_name: name of the id field
        faults: True if a record has fields for its row's error
    """

    fields: tuple[RecordField, ...]
    id_kind: ValueKind
    width: int
    id_name: str = "id"
    faults: bool = True


def values(column: Column) -> Sequence[Any]:
    """Returns a column's value for each row: plain values or arrays, and lists for text."""
    if isinstance(column, RaggedColumn):
        ends = np.cumsum(column.counts)
        ranges = zip((ends - column.counts).tolist(), ends.tolist(), column.listed.tolist(),
                     strict=True)  # fmt: skip
        flat = column.values.tolist() if column.values.dtype == object else column.values
        return [flat[start:end] if listed else flat[start] for start, end, listed in ranges]
    if column.dtype == object or (column.dtype != np.float32 and _is_narrow(column)):
        plain: list[Any] = column.tolist()
        return plain
    # A float32 stays one, as JSON then gets only the digits that a float32 has.
    return list(np.ascontiguousarray(column))


def _is_narrow(column: Array) -> bool:
    """Returns True if lists of Python's numbers are written sooner than an array for each row."""
    return column.ndim == 1 or column.shape[1] <= _MAX_LISTED_VALUES
