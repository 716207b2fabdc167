"""Records as Arrow: a shard is IPC streams one after another; the output is IPC or Parquet."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hsoftmax.models.arrays import Array
from hsoftmax.scoring.results import Column, RaggedColumn, RowResults
from hsoftmax.scoring.row_batch import IntegerIds, RowId
from hsoftmax.scoring.task import RecordField, ValueKind

from .record_schema import RecordSchema

Arrow = Any  # any of pyarrow's own: it has no types to check against

_KINDS: dict[ValueKind, Arrow] = {
    "float32": pa.float32(),
    "float64": pa.float64(),
    "int64": pa.int64(),
    "bool": pa.bool_(),
    "string": pa.string(),
}


def encode(results: RowResults, record_schema: RecordSchema) -> bytes:
    """One batch as a stream of its own; where no row is wrong, without what would say so."""
    if not results.row_errors:
        record_schema = replace(record_schema, faults=False)
    schema = arrow_schema(record_schema)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.record_batch(arrow_arrays(results, record_schema), schema=schema))
    return bytes(sink.getvalue())


def assemble_arrow(shards: Iterable[Path], to: BinaryIO, record_schema: RecordSchema) -> None:
    """An Arrow IPC file of the batches as they are."""
    schema = arrow_schema(record_schema)
    with pa.ipc.new_file(to, schema) as writer:
        for shard in shards:
            for batch in _batches(shard, schema):
                writer.write_batch(batch)


def assemble_parquet(shards: Iterable[Path], to: BinaryIO, record_schema: RecordSchema) -> None:
    """A Parquet file with a row group for each shard."""
    schema = arrow_schema(record_schema)
    # Log-probabilities hardly repeat: a dictionary of them is built for nothing.
    with pq.ParquetWriter(to, schema, use_dictionary=["code", "error"]) as writer:
        for shard in shards:
            writer.write_table(pa.Table.from_batches(_batches(shard, schema), schema))


def arrow_schema(record_schema: RecordSchema) -> Arrow:
    """The columns of every batch of records."""
    fields = [(field.name, _type(field)) for field in record_schema.fields]
    faults = [("line", pa.int64()), ("error", pa.string()), ("code", pa.string())]
    id = (record_schema.id_name, _KINDS[record_schema.id_kind])
    return pa.schema([id, *fields, *(faults if record_schema.faults else [])])


def _type(field: RecordField) -> Arrow:
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


def arrow_arrays(results: RowResults, record_schema: RecordSchema) -> list[Arrow]:
    """Those columns of these records."""
    arrays = [_ids(results.ids, record_schema)]
    place = _places(results)
    for field in record_schema.fields:
        if field.name not in results.columns:
            arrays.append(pa.nulls(len(results), _type(field)))
            continue
        column = _column(results.columns[field.name], field)
        arrays.append(column if place is None else column.take(place))
    return [*arrays, *(_faults(results) if record_schema.faults else [])]


def _ids(ids: Sequence[RowId], record_schema: RecordSchema) -> Arrow:
    if record_schema.id_kind == "string":
        return _text(ids)
    return pa.array(ids.array if isinstance(ids, IntegerIds) else ids, pa.int64())


def _places(results: RowResults) -> Arrow:
    """[rows]: each row's position among those scored, null for one that is not; None if all are."""
    if len(results.scored) == len(results):
        return None
    place = np.zeros(len(results), dtype=np.int64)
    place[results.scored] = np.arange(len(results.scored))
    missing = np.ones(len(results), dtype=np.bool_)
    missing[results.scored] = False
    return pa.array(place, mask=missing)


def _column(column: Column, field: RecordField) -> Arrow:
    if isinstance(column, RaggedColumn):
        offsets = np.concatenate([[0], np.cumsum(column.counts)])
        return _lists(offsets, column.values, field)
    if field.listed:
        rows, width = column.shape if column.ndim == 2 else (len(column), 1)
        return _lists(np.arange(rows + 1) * width, column.reshape(-1), field)
    return _flat(column, field)


def _lists(offsets: Array, values: Array, field: RecordField) -> Arrow:
    return pa.ListArray.from_arrays(offsets.astype(np.int32), _flat(values, field))


def _flat(values: Array, field: RecordField) -> Arrow:
    """No graph's answer is NaN: where it stands, there is no answer."""
    if field.kind == "string":
        return _text(values.tolist())
    return pa.array(values, _KINDS[field.kind], from_pandas=True)


def _text(values: Sequence[object]) -> Arrow:
    return pa.array([None if v is None else str(v) for v in values], pa.string())


def _faults(results: RowResults) -> list[Arrow]:
    count, row_errors = len(results), results.row_errors
    if not row_errors:
        return [pa.nulls(count, kind) for kind in (pa.int64(), pa.string(), pa.string())]
    found = [row_errors.get(i) for i in range(count)]
    lines = [line if i in row_errors else None for i, line in enumerate(results.lines)]
    return [
        pa.array(lines, pa.int64()),
        pa.array(
            [None if row_error is None else str(row_error) for row_error in found], pa.string()
        ),
        pa.array(
            [None if row_error is None else row_error.code for row_error in found], pa.string()
        ),
    ]
