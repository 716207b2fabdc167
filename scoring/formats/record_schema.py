"""The shape of the records that an output holds, the same for all of its shards."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hsoftmax.scoring.results import Column, RaggedColumn
from hsoftmax.scoring.task import RecordField, ValueKind


@dataclass(frozen=True, slots=True)
class RecordSchema:
    """What is written.

    Attributes:
        fields: of a record, besides `id` and what says that it is wrong
        id_kind: of `id`, in the formats that have one kind a column
        width: how many values the lists have, where that is the same for every row
        id_name: what `id` is called
        faults: whether a record has room for what is wrong with its row
    """

    fields: tuple[RecordField, ...]
    id_kind: ValueKind
    width: int
    id_name: str = "id"
    faults: bool = True


def values(column: Column) -> Sequence[Any]:
    """A column row by row: bare values, arrays or, of text, lists."""
    if isinstance(column, RaggedColumn):
        ends = np.cumsum(column.counts)
        cut = zip((ends - column.counts).tolist(), ends.tolist(), column.listed.tolist(),
                  strict=True)  # fmt: skip
        flat = column.values.tolist() if column.values.dtype == object else column.values
        return [flat[a:b] if listed else flat[a] for a, b, listed in cut]
    if column.dtype == object or (column.ndim == 1 and column.dtype != np.float32):
        plain: list[Any] = column.tolist()
        return plain
    # Bare float32 are written with as many digits as they have.
    return list(np.ascontiguousarray(column))
