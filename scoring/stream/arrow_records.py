"""Arrow records of a stream: record batches, and a summary as metadata of the last batch."""

from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import Any

import orjson
import pyarrow as pa

from hsoftmax.scoring.bundle_info import BundleInfo
from hsoftmax.scoring.formats.arrow_types import Arrow
from hsoftmax.scoring.formats.arrow_writer import arrow_arrays, arrow_schema
from hsoftmax.scoring.formats.record_schema import RecordSchema
from hsoftmax.scoring.results import RowResults
from hsoftmax.scoring.task import TargetShape, Task, record_fields

from .pipeline import StreamReader


class ArrowStreamWriter:
    """Writes a record batch for each chunk, all of one schema, which carries `metadata`.

    Everything that is not a record is metadata of a batch without rows: `sequences` and `summary`
    as JSON; of a stream that failed `error`, `code` and `request_id`, with no end mark after them.
    """

    columnar = True

    def __init__(
        self,
        task: Task,
        bundle_info: BundleInfo,
        reader: StreamReader,
        metadata: Mapping[str, str],
    ) -> None:
        self._task = task
        self._bundle_info = bundle_info
        self._reader = reader
        self._metadata = dict(metadata)
        self._sink = BytesIO()
        self._writer: Any = None
        self._schema: RecordSchema | None = None

    def encode_rows(self, results: RowResults, target_shape: TargetShape) -> Iterator[bytes]:
        schema = self._begin(target_shape)
        assert self._schema is not None
        batch = pa.record_batch(arrow_arrays(results, self._schema), schema=schema)
        self._writer.write_batch(batch)
        yield self._take_bytes()

    def opening(self) -> bytes:
        return self._write_metadata({}) if self._schema is None else b""

    def sequences(self, reports: list[dict[str, Any]]) -> bytes:
        return self._write_metadata({"sequences": orjson.dumps(reports)})

    def summary(self, summary: Mapping[str, Any]) -> bytes:
        last = self._write_metadata({"summary": orjson.dumps(summary)})
        self._writer.close()
        return last + self._take_bytes()

    def failure(self, error: Mapping[str, Any]) -> bytes:
        return self._write_metadata({name: str(value).encode() for name, value in error.items()})

    def _write_metadata(self, metadata: Mapping[str, bytes]) -> bytes:
        empty = pa.RecordBatch.from_pylist([], schema=self._begin("one"))
        self._writer.write_batch(empty, custom_metadata=dict(metadata))
        return self._take_bytes()

    def _begin(self, target_shape: TargetShape) -> Arrow:
        """Returns the stream's Arrow schema, which the first call decides and writes."""
        if self._schema is None:
            fields = record_fields(self._task, target_shape, self._bundle_info)
            self._schema = RecordSchema(fields, self._reader.id_kind, 0)
            schema = arrow_schema(self._schema).with_metadata(self._metadata)
            self._writer = pa.ipc.new_stream(self._sink, schema)
        return arrow_schema(self._schema).with_metadata(self._metadata)

    def _take_bytes(self) -> bytes:
        """Returns the bytes written since the last call."""
        written = self._sink.getvalue()
        self._sink.seek(0)
        self._sink.truncate()
        return written
