"""Records as Arrow: a shard is IPC streams one after another; the output is IPC or Parquet."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hsoftmax.models.arrays import Array
from hsoftmax.scoring.results import Column, Ragged, Records
from hsoftmax.scoring.row_batch import Id, Integers
from hsoftmax.scoring.task import Field, Kind

from .record_schema import Layout

Arrow = Any  # any of pyarrow's own: it has no types to check against

_KINDS: dict[Kind, Arrow] = {
    "float32": pa.float32(),
    "float64": pa.float64(),
    "int64": pa.int64(),
    "bool": pa.bool_(),
    "string": pa.string(),
}


def encode(records: Records, layout: Layout) -> bytes:
    """One batch as a stream of its own; where no row is wrong, without what would say so."""
    if not records.flaws:
        layout = replace(layout, faults=False)
    schema = schema_of(layout)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.record_batch(arrays_of(records, layout), schema=schema))
    return bytes(sink.getvalue())


def assemble_arrow(shards: Iterable[Path], to: BinaryIO, layout: Layout) -> None:
    """An Arrow IPC file of the batches as they are."""
    schema = schema_of(layout)
    with pa.ipc.new_file(to, schema) as writer:
        for shard in shards:
            for batch in _batches(shard, schema):
                writer.write_batch(batch)


def assemble_parquet(shards: Iterable[Path], to: BinaryIO, layout: Layout) -> None:
    """A Parquet file with a row group for each shard."""
    schema = schema_of(layout)
    # Log-probabilities hardly repeat: a dictionary of them is built for nothing.
    with pq.ParquetWriter(to, schema, use_dictionary=["code", "error"]) as writer:
        for shard in shards:
            writer.write_table(pa.Table.from_batches(_batches(shard, schema), schema))


def schema_of(layout: Layout) -> Arrow:
    """The columns of every batch of records."""
    fields = [(field.name, _type(field)) for field in layout.fields]
    faults = [("line", pa.int64()), ("error", pa.string()), ("code", pa.string())]
    id = (layout.id_name, _KINDS[layout.id_kind])
    return pa.schema([id, *fields, *(faults if layout.faults else [])])


def _type(field: Field) -> Arrow:
    kind = _KINDS[field.kind]
    return pa.list_(kind) if field.listed else kind


def _batches(shard: Path, schema: Arrow) -> Iterator[Arrow]:
    """With all of the schema's columns: those that a batch was written without are null."""
    with pa.OSFile(str(shard)) as file:
        while file.tell() < file.size():
            for batch in pa.ipc.open_stream(file):
                missing = schema.types[batch.num_columns :]
                nulls = [pa.nulls(batch.num_rows, kind) for kind in missing]
                yield pa.record_batch([*batch.columns, *nulls], schema=schema)


def arrays_of(records: Records, layout: Layout) -> list[Arrow]:
    """Those columns of these records."""
    arrays = [_ids(records.ids, layout)]
    place = _places(records)
    for field in layout.fields:
        if field.name not in records.columns:
            arrays.append(pa.nulls(len(records), _type(field)))
            continue
        column = _column(records.columns[field.name], field)
        arrays.append(column if place is None else column.take(place))
    return [*arrays, *(_faults(records) if layout.faults else [])]


def _ids(ids: Sequence[Id], layout: Layout) -> Arrow:
    if layout.id_kind == "string":
        return _text(ids)
    return pa.array(ids.array if isinstance(ids, Integers) else ids, pa.int64())


def _places(records: Records) -> Arrow:
    """[rows]: each row's position among those scored, null for one that is not; None if all are."""
    if len(records.scored) == len(records):
        return None
    place = np.zeros(len(records), dtype=np.int64)
    place[records.scored] = np.arange(len(records.scored))
    missing = np.ones(len(records), dtype=np.bool_)
    missing[records.scored] = False
    return pa.array(place, mask=missing)


def _column(column: Column, field: Field) -> Arrow:
    if isinstance(column, Ragged):
        offsets = np.concatenate([[0], np.cumsum(column.counts)])
        return _lists(offsets, column.values, field)
    if field.listed:
        rows, width = column.shape if column.ndim == 2 else (len(column), 1)
        return _lists(np.arange(rows + 1) * width, column.reshape(-1), field)
    return _flat(column, field)


def _lists(offsets: Array, values: Array, field: Field) -> Arrow:
    return pa.ListArray.from_arrays(offsets.astype(np.int32), _flat(values, field))


def _flat(values: Array, field: Field) -> Arrow:
    """No graph's answer is NaN: where it stands, there is no answer."""
    if field.kind == "string":
        return _text(values.tolist())
    return pa.array(values, _KINDS[field.kind], from_pandas=True)


def _text(values: Sequence[object]) -> Arrow:
    return pa.array([None if v is None else str(v) for v in values], pa.string())


def _faults(records: Records) -> list[Arrow]:
    count, flaws = len(records), records.flaws
    if not flaws:
        return [pa.nulls(count, kind) for kind in (pa.int64(), pa.string(), pa.string())]
    found = [flaws.get(i) for i in range(count)]
    lines = [line if i in flaws else None for i, line in enumerate(records.lines)]
    return [
        pa.array(lines, pa.int64()),
        pa.array([None if flaw is None else str(flaw) for flaw in found], pa.string()),
        pa.array([None if flaw is None else flaw.code for flaw in found], pa.string()),
    ]
