"""A stream of NDJSON rows as a stream of records: order kept, memory bounded, an end that says so.

    bytes ─ LineSplitter ─> lines ─ a few at a time ─> rows, graph, records ─> bytes, and a summary

Nothing is read before the records of what was read are taken: a slow reader slows the sender. The
last line is {"summary": …} with the SHA-256 of all bytes before it: a connection that is cut cannot
pass for one that ended.
"""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from models.arrays import Array

from .asked import Asked, ask
from .facts import Facts
from .formats.columns import Columns
from .formats.layout import Layout
from .formats.lines import LONGEST_LINE, Line
from .formats.ndjson import Decoder, encode
from .perplexity import Tally, tallies
from .records import Records, answered
from .rows import Rows, reading
from .task import Form, Task, check, fields

RunAsync = Callable[[Asked], Awaitable[list[Array]]]


async def stream_records(
    body: AsyncIterator[bytes], task: Task, facts: Facts, *, run: RunAsync, batch: int
) -> AsyncIterator[bytes]:
    """The records of at most `batch` rows at a time, and the summary.

    Raises:
        CallError: the bundle cannot answer the task; before anything is given.
    """
    splitter, count = LineSplitter(), _Count()
    decoder = Decoder(Columns())
    form: Form | None = None
    async for lines in _batches(body, splitter, batch):
        if form is None:
            form = _form(task, decoder.form(lines))
            check(task, form, facts)
        rows = decoder.rows(lines, count.rows + 1, reading(task, form == "none", facts))
        asked = ask(rows, task, form, count.rows)
        outputs = [] if asked is None else await run(asked)
        records = answered(rows, task, facts, asked, outputs)
        content = encode(records, Layout(fields(task, form, facts), "string", 0))
        count.add(rows, records, content, task)
        yield content
    yield count.summary(task)


class LineSplitter:
    """Lines out of bytes that come in any pieces; holds one unfinished line, never a longer one."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._too_long = False

    def feed(self, data: bytes) -> list[Line]:
        """The lines that end within these bytes."""
        *ended, rest = data.split(b"\n")
        lines = [self._end(part) for part in ended]
        self._add(rest)
        return lines

    def end(self) -> list[Line]:
        """The last line, where no newline ends it."""
        return [self._end(b"")] if self._rest or self._too_long else []

    def _end(self, part: bytes) -> Line:
        self._add(part)
        line = None if self._too_long else bytes(self._rest).rstrip(b"\r")
        self._rest.clear()
        self._too_long = False
        return line

    def _add(self, part: bytes) -> None:
        if self._too_long or len(self._rest) + len(part) > LONGEST_LINE:
            self._too_long = True
            self._rest.clear()
        else:
            self._rest += part


async def _batches(
    body: AsyncIterator[bytes], splitter: LineSplitter, batch: int
) -> AsyncIterator[list[Line]]:
    """What has come, at once: a sender that waits for answers gets them."""
    async for data in body:
        for lines in _cut(splitter.feed(data), batch):
            yield lines
    for lines in _cut(splitter.end(), batch):
        yield lines


def _cut(lines: Sequence[Line], batch: int) -> Iterator[list[Line]]:
    for start in range(0, len(lines), batch):
        yield list(lines[start : start + batch])


def _form(task: Task, found: Form) -> Form:
    """Only `probabilities` may be asked without targets."""
    return found if task.name == "probabilities" else "one"


@dataclass
class _Count:
    """What the summary will say."""

    rows: int = 0
    failed: int = 0
    corpus: Tally = field(default_factory=Tally)
    digest: Any = field(default_factory=hashlib.sha256)

    def add(self, rows: Rows, records: Records, content: bytes, task: Task) -> None:
        self.rows += len(rows)
        self.failed += len(records.flaws)
        self.digest.update(content)
        if task.name == "perplexity":
            self.corpus = sum(tallies(rows, records, task.log_base).values(), self.corpus)

    def summary(self, task: Task) -> bytes:
        said: dict[str, Any] = {
            "rows_in": self.rows,
            "scored": self.rows - self.failed,
            "failed": self.failed,
            "sha256": self.digest.hexdigest(),
        }
        if task.name == "perplexity":
            said["corpus"] = self.corpus.report(task.log_base)
        return orjson.dumps({"summary": said}, option=orjson.OPT_APPEND_NEWLINE)
