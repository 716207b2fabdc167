"""Writes records as Arrow. A shard is a series of IPC streams; an output is IPC or Parquet."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hsoftmax.models.arrays import Array
from hsoftmax.scoring.requirements import RowId
from hsoftmax.scoring.results import Column, RaggedColumn, RowResults
from hsoftmax.scoring.row_batch import IntegerIds
from hsoftmax.scoring.task import RecordField, ValueKind

from .arrow_types import Arrow
from .record_schema import RecordSchema

_TYPES: dict[ValueKind, Arrow] = {
    "float32": pa.float32(),
    "float64": pa.float64(),
    "int64": pa.int64(),
    "bool": pa.bool_(),
    "string": pa.string(),
}


def encode(results: RowResults, schema: RecordSchema) -> bytes:
    """Returns one batch as an IPC stream; without the error columns if no row failed."""
    if not results.row_errors:
        schema = replace(schema, faults=False)
    columns = arrow_schema(schema)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, columns) as writer:
        writer.write_batch(pa.record_batch(arrow_arrays(results, schema), schema=columns))
    return bytes(sink.getvalue())


def assemble_arrow(shards: Iterable[Path], to: BinaryIO, schema: RecordSchema) -> None:
    """Writes an Arrow IPC file with the batches of the shards."""
    columns = arrow_schema(schema)
    with pa.ipc.new_file(to, columns) as writer:
        for shard in shards:
            for batch in _batches(shard, columns):
                writer.write_batch(batch)


def assemble_parquet(shards: Iterable[Path], to: BinaryIO, schema: RecordSchema) -> None:
    """Writes a Parquet file with a row group for each shard."""
    columns = arrow_schema(schema)
    # A dictionary of log-probabilities would save nothing, because they hardly ever repeat.
    with pq.ParquetWriter(to, columns, use_dictionary=["code", "error"]) as writer:
        for shard in shards:
            writer.write_table(pa.Table.from_batches(_batches(shard, columns), columns))


def arrow_schema(schema: RecordSchema) -> Arrow:
    """Returns the Arrow schema of the records."""
    fields = [(field.name, _type(field)) for field in schema.fields]
    errors = [("line", pa.int64()), ("error", pa.string()), ("code", pa.string())]
    id = (schema.id_name, _TYPES[schema.id_kind])
    return pa.schema([id, *fields, *(errors if schema.faults else [])])


def _type(field: RecordField) -> Arrow:
    kind = _TYPES[field.kind]
    return pa.list_(kind) if field.listed else kind


def _batches(shard: Path, columns: Arrow) -> Iterator[Arrow]:
    """Yields a shard's batches; columns that a batch was written without are null."""
    with pa.OSFile(str(shard)) as file:
        while file.tell() < file.size():
            for batch in pa.ipc.open_stream(file):
                missing = columns.types[batch.num_columns :]
                nulls = [pa.nulls(batch.num_rows, kind) for kind in missing]
                yield pa.record_batch([*batch.columns, *nulls], schema=columns)


def arrow_arrays(results: RowResults, schema: RecordSchema) -> list[Arrow]:
    """Returns the arrays of `arrow_schema` for these results."""
    arrays = [_ids(results.ids, schema)]
    positions = _scored_positions(results)
    for field in schema.fields:
        if field.name not in results.columns:
            arrays.append(pa.nulls(len(results), _type(field)))
            continue
        column = _column(results.columns[field.name], field)
        arrays.append(column if positions is None else column.take(positions))
    return [*arrays, *(_error_columns(results) if schema.faults else [])]


def _ids(ids: Sequence[RowId], schema: RecordSchema) -> Arrow:
    if schema.id_kind == "string":
        return _text(ids)
    return pa.array(ids.array if isinstance(ids, IntegerIds) else ids, pa.int64())


def _scored_positions(results: RowResults) -> Arrow:
    """Returns [rows]: the position of each row among the scored rows, null for a failed row.

    Returns None if all rows are scored.
    """
    if len(results.scored) == len(results):
        return None
    positions = np.zeros(len(results), dtype=np.int64)
    positions[results.scored] = np.arange(len(results.scored))
    failed = np.ones(len(results), dtype=np.bool_)
    failed[results.scored] = False
    return pa.array(positions, mask=failed)


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
    """Returns a flat array, with null for NaN: NaN stands for a value that does not exist."""
    if field.kind == "string":
        return _text(values.tolist())
    return pa.array(values, _TYPES[field.kind], from_pandas=True)


def _text(values: Sequence[object]) -> Arrow:
    return pa.array([None if v is None else str(v) for v in values], pa.string())


def _error_columns(results: RowResults) -> list[Arrow]:
    """Returns the columns line, error and code."""
    count, row_errors = len(results), results.row_errors
    if not row_errors:
        return [pa.nulls(count, kind) for kind in (pa.int64(), pa.string(), pa.string())]
    by_row = [row_errors.get(i) for i in range(count)]
    lines = [line if i in row_errors else None for i, line in enumerate(results.lines)]
    return [
        pa.array(lines, pa.int64()),
        pa.array([None if error is None else str(error) for error in by_row], pa.string()),
        pa.array([None if error is None else error.code for error in by_row], pa.string()),
    ]
