"""Arrow IPC as a stream: record batches in and out, and a summary as metadata of the last batch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import orjson
import pyarrow as pa

from hsoftmax.scoring.bundle_info import BundleInfo
from hsoftmax.scoring.errors import BrokenInput, CallError
from hsoftmax.scoring.formats.arrow_batch import Arrow, parse_batch
from hsoftmax.scoring.formats.arrow_reader import expect_types, has_integral_ids
from hsoftmax.scoring.formats.arrow_writer import arrow_arrays, arrow_schema
from hsoftmax.scoring.formats.columns import Columns, input_columns
from hsoftmax.scoring.formats.reader import target_shape_of
from hsoftmax.scoring.formats.record_schema import RecordSchema
from hsoftmax.scoring.results import RowResults
from hsoftmax.scoring.row_batch import RowBatch, RowRequirements
from hsoftmax.scoring.task import TargetShape, Task, ValueKind, record_fields

from .arrow_framing import MAX_MESSAGE_BYTES, NOT_ARROW, ArrowFramer, ArrowMessage
from .pipeline import StreamReader

_CHUNK_BYTES = 2**19  # of columns that are parsed in one call, which takes a millisecond or two
_COLUMNS = Columns()


@dataclass(frozen=True, slots=True)
class _InputSchema:
    """The schema message of a stream, and the facts that parsing needs from it."""

    raw: bytes
    inputs: tuple[str, ...]
    target_shape: TargetShape
    id_kind: ValueKind


class ArrowStreamReader:
    """Reads chunks of rows; each is a part of one record batch."""

    def __init__(self, bundle_info: BundleInfo) -> None:
        self.rows = 1
        self._framer = ArrowFramer()
        self._bundle_info = bundle_info
        self._schema: _InputSchema | None = None
        self._dictionaries: dict[int, list[bytes]] = {}

    @property
    def id_kind(self) -> ValueKind:
        return "string" if self._schema is None else self._schema.id_kind

    def feed(self, data: bytes) -> Iterator[Arrow]:
        for message in self._framer.feed(data):
            if message.kind == "record batch":
                yield from self._chunks(self._decode(message))
            elif message.kind == "dictionary":
                self._store_dictionary(message)
            elif self._schema is None:
                self._schema = _read_schema(message.raw, self._bundle_info)
            else:
                raise BrokenInput("body: expected one schema, got another")

    def end(self) -> Iterator[Arrow]:
        self._framer.end()
        return iter(())

    def target_shape(self, chunk: Arrow) -> TargetShape | None:
        return self._expect_schema().target_shape

    def parse(self, chunk: Arrow, first_line: int, requirements: RowRequirements) -> RowBatch:
        return parse_batch(chunk, _COLUMNS, self._expect_schema().inputs, first_line, requirements)

    def _decode(self, message: ArrowMessage) -> Arrow:
        """Decodes a batch as if it were a stream of its own. Raises BrokenInput."""
        dictionaries = [raw for raws in self._dictionaries.values() for raw in raws]
        content = b"".join([self._expect_schema().raw, *dictionaries, message.raw])
        try:
            batch = pa.ipc.open_stream(pa.py_buffer(content)).read_next_batch()
            batch.validate(full=True)
        except (pa.ArrowException, OSError, ValueError, StopIteration):
            raise BrokenInput(NOT_ARROW) from None
        return batch

    def _chunks(self, batch: Arrow) -> Iterator[Arrow]:
        max_rows = max(1, batch.num_rows * _CHUNK_BYTES // max(1, batch.nbytes))
        start = 0
        while start < batch.num_rows:
            chunk = batch.slice(start, min(self.rows, max_rows))
            start += chunk.num_rows
            yield chunk

    def _store_dictionary(self, message: ArrowMessage) -> None:
        """Stores a dictionary for the batches after it. Raises BrokenInput if it is too large."""
        before = self._dictionaries.get(message.dictionary, []) if message.delta else []
        self._dictionaries[message.dictionary] = [*before, message.raw]
        size = sum(len(raw) for raws in self._dictionaries.values() for raw in raws)
        if size > MAX_MESSAGE_BYTES:
            raise BrokenInput(
                f"body: expected dictionaries of at most {MAX_MESSAGE_BYTES} bytes in all, got more"
            )

    def _expect_schema(self) -> _InputSchema:
        if self._schema is None:
            raise BrokenInput("body: expected a schema before all batches, got none")
        return self._schema


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
        yield self._written()

    def opening(self) -> bytes:
        return self._write_metadata({}) if self._schema is None else b""

    def sequences(self, reports: list[dict[str, Any]]) -> bytes:
        return self._write_metadata({"sequences": orjson.dumps(reports)})

    def summary(self, summary: Mapping[str, Any]) -> bytes:
        last = self._write_metadata({"summary": orjson.dumps(summary)})
        self._writer.close()
        return last + self._written()

    def failure(self, error: Mapping[str, Any]) -> bytes:
        return self._write_metadata({name: str(value).encode() for name, value in error.items()})

    def _write_metadata(self, metadata: Mapping[str, bytes]) -> bytes:
        empty = pa.RecordBatch.from_pylist([], schema=self._begin("one"))
        self._writer.write_batch(empty, custom_metadata=dict(metadata))
        return self._written()

    def _begin(self, target_shape: TargetShape) -> Arrow:
        """Returns the stream's Arrow schema, which the first call decides and writes."""
        if self._schema is None:
            fields = record_fields(self._task, target_shape, self._bundle_info)
            self._schema = RecordSchema(fields, self._reader.id_kind, 0)
            schema = arrow_schema(self._schema).with_metadata(self._metadata)
            self._writer = pa.ipc.new_stream(self._sink, schema)
        return arrow_schema(self._schema).with_metadata(self._metadata)

    def _written(self) -> bytes:
        """Returns the bytes written since the last call."""
        written = self._sink.getvalue()
        self._sink.seek(0)
        self._sink.truncate()
        return written


def _read_schema(raw: bytes, bundle_info: BundleInfo) -> _InputSchema:
    """Reads a schema message.

    Raises:
        BrokenInput: it is not one.
        CallError: columns are missing or of unusable types.
    """
    try:
        schema = pa.ipc.read_schema(pa.py_buffer(raw))
        names = schema.names
    except (pa.ArrowException, OSError, ValueError):
        raise BrokenInput(NOT_ARROW) from None
    if len(set(names)) < len(names):
        raise CallError("columns: expected each once, got one twice")
    inputs = input_columns(_COLUMNS, names, bundle_info.hidden_size)
    expect_types("body", schema, _COLUMNS, inputs, bundle_info.hidden_size)
    target_shape = target_shape_of(names, _COLUMNS.target, _COLUMNS.targets)
    id_kind: ValueKind = "int64" if has_integral_ids(schema, _COLUMNS.id) else "string"
    return _InputSchema(raw, inputs, target_shape, id_kind)
