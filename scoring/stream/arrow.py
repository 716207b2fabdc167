"""Arrow IPC as a stream: batches in and out, and the summary as metadata of a last, empty one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import orjson
import pyarrow as pa

from hsoftmax.scoring.bundle_info import BundleInfo
from hsoftmax.scoring.errors import BrokenInput, CallError
from hsoftmax.scoring.formats.arrow_batch import Arrow, parse_batch
from hsoftmax.scoring.formats.arrow_reader import expect_types
from hsoftmax.scoring.formats.arrow_writer import arrow_arrays, arrow_schema
from hsoftmax.scoring.formats.columns import Columns, input_columns
from hsoftmax.scoring.formats.reader import target_shape_of
from hsoftmax.scoring.formats.record_schema import RecordSchema
from hsoftmax.scoring.results import RowResults
from hsoftmax.scoring.row_batch import RowBatch, RowRequirements
from hsoftmax.scoring.task import TargetShape, Task, ValueKind, fields

from .arrow_framing import MAX_MESSAGE_BYTES, NOT_ARROW, ArrowFramer, ArrowMessage
from .pipeline import StreamReader

_CHUNK_BYTES = 2**19  # of columns that are looked at in one go: a millisecond or two
_COLUMNS = Columns()


@dataclass(frozen=True, slots=True)
class _Opened:
    """What the schema says."""

    raw: bytes
    inputs: tuple[str, ...]
    target_shape: TargetShape
    id_kind: ValueKind


class ArrowStreamReader:
    """Chunks of rows, none of them across two batches."""

    def __init__(self, bundle_info: BundleInfo) -> None:
        self.rows = 1
        self._framer = ArrowFramer()
        self._facts = bundle_info
        self._opened: _Opened | None = None
        self._dictionaries: dict[int, list[bytes]] = {}

    @property
    def id_kind(self) -> ValueKind:
        return "string" if self._opened is None else self._opened.id_kind

    def feed(self, data: bytes) -> Iterator[Arrow]:
        for message in self._framer.feed(data):
            if message.kind == "record batch":
                yield from self._cut(self._batch(message))
            elif message.kind == "dictionary":
                self._keep(message)
            elif self._opened is None:
                self._opened = _open(message.raw, self._facts)
            else:
                raise BrokenInput("body: expected one schema, got another")

    def end(self) -> Iterator[Arrow]:
        self._framer.end()
        return iter(())

    def target_shape(self, chunk: Arrow) -> TargetShape | None:
        return self._expect_opened().target_shape

    def parse(self, chunk: Arrow, first_line: int, requirements: RowRequirements) -> RowBatch:
        return parse_batch(chunk, _COLUMNS, self._expect_opened().inputs, first_line, requirements)

    def _batch(self, message: ArrowMessage) -> Arrow:
        """The batch, read as if it were a stream of its own."""
        before = [raw for raws in self._dictionaries.values() for raw in raws]
        content = b"".join([self._expect_opened().raw, *before, message.raw])
        try:
            batch = pa.ipc.open_stream(pa.py_buffer(content)).read_next_batch()
            batch.validate(full=True)
        except (pa.ArrowException, OSError, ValueError, StopIteration):
            raise BrokenInput(NOT_ARROW) from None
        return batch

    def _cut(self, batch: Arrow) -> Iterator[Arrow]:
        share = max(1, batch.num_rows * _CHUNK_BYTES // max(1, batch.nbytes))
        start = 0
        while start < batch.num_rows:
            chunk = batch.slice(start, min(self.rows, share))
            start += chunk.num_rows
            yield chunk

    def _keep(self, message: ArrowMessage) -> None:
        kept = self._dictionaries.get(message.dictionary, []) if message.delta else []
        self._dictionaries[message.dictionary] = [*kept, message.raw]
        held = sum(len(raw) for raws in self._dictionaries.values() for raw in raws)
        if held > MAX_MESSAGE_BYTES:
            raise BrokenInput(
                f"body: expected dictionaries of at most {MAX_MESSAGE_BYTES} bytes in all, got more"
            )

    def _expect_opened(self) -> _Opened:
        if self._opened is None:
            raise BrokenInput("body: expected a schema before all batches, got none")
        return self._opened


class ArrowStreamWriter:
    """A batch a chunk, all of one schema; `told` is the schema's metadata.

    What is no record is metadata of a batch without rows: `sequences` and `summary` as JSON;
    of a stream that failed `error`, `code` and `request_id`, with no end after them.
    """

    columnar = True

    def __init__(
        self, task: Task, bundle_info: BundleInfo, reader: StreamReader, told: Mapping[str, str]
    ) -> None:
        self._task = task
        self._facts = bundle_info
        self._intake = reader
        self._told = dict(told)
        self._sink = BytesIO()
        self._writer: Any = None
        self._layout: RecordSchema | None = None

    def encode_rows(self, results: RowResults, target_shape: TargetShape) -> Iterator[bytes]:
        schema = self._begin(target_shape)
        assert self._layout is not None
        batch = pa.record_batch(arrow_arrays(results, self._layout), schema=schema)
        self._writer.write_batch(batch)
        yield self._taken()

    def opening(self) -> bytes:
        return self._say({}) if self._layout is None else b""

    def sequences(self, reports: list[dict[str, Any]]) -> bytes:
        return self._say({"sequences": orjson.dumps(reports)})

    def summary(self, said: Mapping[str, Any]) -> bytes:
        last = self._say({"summary": orjson.dumps(said)})
        self._writer.close()
        return last + self._taken()

    def failure(self, said: Mapping[str, Any]) -> bytes:
        return self._say({name: str(value).encode() for name, value in said.items()})

    def _say(self, metadata: Mapping[str, bytes]) -> bytes:
        nothing = pa.RecordBatch.from_pylist([], schema=self._begin("one"))
        self._writer.write_batch(nothing, custom_metadata=dict(metadata))
        return self._taken()

    def _begin(self, target_shape: TargetShape) -> Arrow:
        """The schema, as the first records decide it."""
        if self._layout is None:
            kind = self._intake.id_kind
            self._layout = RecordSchema(fields(self._task, target_shape, self._facts), kind, 0)
            schema = arrow_schema(self._layout).with_metadata(self._told)
            self._writer = pa.ipc.new_stream(self._sink, schema)
        return arrow_schema(self._layout).with_metadata(self._told)

    def _taken(self) -> bytes:
        taken = self._sink.getvalue()
        self._sink.seek(0)
        self._sink.truncate()
        return taken


def _open(raw: bytes, bundle_info: BundleInfo) -> _Opened:
    """Raises BrokenInput, or CallError where columns are missing or of types that cannot be."""
    try:
        schema = pa.ipc.read_schema(pa.py_buffer(raw))
        names = schema.names
    except (pa.ArrowException, OSError, ValueError):
        raise BrokenInput(NOT_ARROW) from None
    if len(set(names)) < len(names):
        raise CallError("columns: expected each once, got one twice")
    inputs = input_columns(_COLUMNS, names, bundle_info.hidden_size)
    expect_types("body", schema, _COLUMNS, inputs, bundle_info.hidden_size)
    id = _COLUMNS.id
    kind = schema.field(id).type if id in names else None
    integral = kind is not None and pa.types.is_integer(kind) and kind != pa.uint64()
    target_shape = target_shape_of(names, _COLUMNS.target, _COLUMNS.targets)
    return _Opened(raw, inputs, target_shape, "int64" if integral else "string")
