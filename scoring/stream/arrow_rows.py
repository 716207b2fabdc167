"""Arrow rows of a stream: decodes each record batch of a body as it arrives."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from hsoftmax.scoring.bundle_info import BundleInfo
from hsoftmax.scoring.errors import BrokenInput, CallError
from hsoftmax.scoring.formats.arrow_batch import copied_sizes, expect_structure, parse_batch
from hsoftmax.scoring.formats.arrow_reader import expect_types, has_integral_ids
from hsoftmax.scoring.formats.arrow_sizes import end_within
from hsoftmax.scoring.formats.arrow_types import Arrow
from hsoftmax.scoring.formats.columns import Columns, find_inputs
from hsoftmax.scoring.formats.reader import target_shape_of
from hsoftmax.scoring.requirements import RowRequirements
from hsoftmax.scoring.row_batch import RowBatch
from hsoftmax.scoring.task import TargetShape, ValueKind

from .arrow_framing import MAX_MESSAGE_BYTES, NOT_ARROW, ArrowFramer, ArrowMessage

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
        self._dictionaries: dict[int, list[ArrowMessage]] = {}

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
        dictionaries = [one.raw for parts in self._dictionaries.values() for one in parts]
        content = b"".join([self._expect_schema().raw, *dictionaries, message.raw])
        try:
            batch = pa.ipc.open_stream(pa.py_buffer(content)).read_next_batch()
            expect_structure(batch)  # `parse` checks the text of each row
        except Exception:  # pyarrow's, of any type
            raise BrokenInput(NOT_ARROW) from None
        return batch

    def _chunks(self, batch: Arrow) -> Iterator[Arrow]:
        inputs = self._expect_schema().inputs
        ends, start = np.cumsum(copied_sizes(batch, _COLUMNS, inputs)), 0
        while start < batch.num_rows:
            end = min(start + self.rows, end_within(ends, start, _CHUNK_BYTES))
            yield batch.slice(start, end - start)
            start = end

    def _store_dictionary(self, message: ArrowMessage) -> None:
        """Stores a dictionary for the batches after it. Raises BrokenInput if it is too large."""
        before = self._dictionaries.get(message.dictionary, []) if message.delta else []
        self._dictionaries[message.dictionary] = [*before, message]
        size = sum(one.size for parts in self._dictionaries.values() for one in parts)
        if size > MAX_MESSAGE_BYTES:
            raise BrokenInput(
                f"body: expected dictionaries of at most {MAX_MESSAGE_BYTES} bytes in all, got more"
            )

    def _expect_schema(self) -> _InputSchema:
        if self._schema is None:
            raise BrokenInput("body: expected a schema before all batches, got none")
        return self._schema


def _read_schema(raw: bytes, bundle_info: BundleInfo) -> _InputSchema:
    """Reads a schema message.

    Raises:
        BrokenInput: it is not one.
        CallError: columns are missing or of unusable types.
    """
    try:
        schema = pa.ipc.read_schema(pa.py_buffer(raw))
        names = schema.names
    except Exception:  # pyarrow's, of any type
        raise BrokenInput(NOT_ARROW) from None
    if len(set(names)) < len(names):
        raise CallError("columns: expected each once, got one twice")
    inputs = find_inputs(_COLUMNS, names, bundle_info)
    expect_types("body", schema, _COLUMNS, inputs, bundle_info)
    target_shape = target_shape_of(names, _COLUMNS.target, _COLUMNS.targets)
    id_kind: ValueKind = "int64" if has_integral_ids(schema, _COLUMNS.id) else "string"
    return _InputSchema(raw, inputs, target_shape, id_kind)
