"""Scores a stream of rows, a few chunks ahead of the client.

    bytes ─ StreamReader ─> chunks ─ graph runs, a few at once ─> in order ─ StreamWriter ─> bytes

It stops reading while the maximum number of chunks is in progress, so a client that reads slowly
slows its own sending. The last record is a summary with the SHA-256 of everything before it, so a
stream that was cut off cannot pass for a whole one.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np

from hsoftmax.models.arrays import Array
from hsoftmax.scoring.bundle_info import BundleInfo
from hsoftmax.scoring.errors import RowError
from hsoftmax.scoring.graph_request import GraphRequest, build_graph_request
from hsoftmax.scoring.requirements import RowRequirements, row_requirements
from hsoftmax.scoring.results import RowResults, build_results
from hsoftmax.scoring.row_batch import RowBatch
from hsoftmax.scoring.task import (
    TargetShape,
    Task,
    ValueKind,
    check_task,
    with_default_k,
    with_searched_k,
)

from .summary import StreamTotals

T = TypeVar("T")

_MAX_UNREADABLE_ROWS = 32  # in a chunk, before the first row that can be read
_MAX_INLINE_NUMBERS = 2**17  # numbers that take about a millisecond to convert

# Runs a request for rows of which the first has this number, from 0. It raises RowError if these
# rows fail; any other error ends the stream.
AsyncGraphRunner = Callable[[GraphRequest, int], Awaitable[list[Array]]]
Send = Callable[[bytes], Awaitable[None]]


class RunInIdle(Protocol):
    """Calls a function of about a millisecond when no other work is delayed by it."""

    async def __call__(self, function: Callable[[], T]) -> T: ...


class StreamReader(Protocol):
    """Turns bytes that come in any pieces into chunks of rows.

    Attributes:
        rows: the maximum number of rows of the next chunks
        id_kind: "int64" if every id is an integer, else "string"

    Raises:
        BrokenInput: the bytes cannot be read any further.
        CallError: the rows do not fit the bundle or the task.
    """

    rows: int

    @property
    def id_kind(self) -> ValueKind: ...

    def feed(self, data: bytes) -> Iterable[Sized]:
        """Returns the chunks that end within these bytes; the length of a chunk is its rows."""

    def end(self) -> Iterable[Sized]:
        """Returns the remaining chunks, after the last bytes."""

    def target_shape(self, chunk: Any) -> TargetShape | None:  # noqa: ANN401  a chunk of its own
        """Returns the target shape of the chunk's rows, or None if no row can be read."""

    def parse(
        self,
        chunk: Any,  # noqa: ANN401
        first_line: int,
        requirements: RowRequirements,
    ) -> RowBatch:
        """Parses and checks the rows of a chunk."""


class StreamWriter(Protocol):
    """Encodes records, in pieces that take about a millisecond each.

    Attributes:
        columnar: True if every record has fields of the same types as the first one
    """

    columnar: bool

    def encode_rows(self, results: RowResults, target_shape: TargetShape) -> Iterator[bytes]: ...

    def opening(self) -> bytes:
        """Returns the bytes that must come first, unless rows were encoded already."""

    def sequences(self, reports: list[dict[str, Any]]) -> bytes: ...

    def summary(self, summary: Mapping[str, Any]) -> bytes:
        """Returns the last bytes of a whole stream."""

    def failure(self, error: Mapping[str, Any]) -> bytes:
        """Returns the last bytes of a stream that failed."""


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """The specification of a stream, and the parts that process it.

    Attributes:
        run_parse: runs the parser of a chunk; `run_in_idle` where rows are numbers
        rows: returns the maximum number of rows of a chunk for a target shape
        max_pending: the maximum number of chunks in progress
        max_targets: the maximum number of targets of a row
    """

    task: Task
    bundle_info: BundleInfo
    reader: StreamReader
    writer: StreamWriter
    run_graph: AsyncGraphRunner
    run_in_idle: RunInIdle
    run_parse: RunInIdle
    rows: Callable[[TargetShape], int]
    max_pending: int
    max_targets: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "task", with_default_k(self.task, self.bundle_info))


@dataclass(frozen=True, slots=True)
class _RunChunk:
    """A chunk after its graph run; `request` is None if no row needed the graph."""

    rows: RowBatch
    target_shape: TargetShape
    request: GraphRequest | None
    outputs: list[Array]


_Queue = asyncio.Queue["asyncio.Task[_RunChunk] | Exception | None"]


async def score_stream(
    body: AsyncIterator[bytes], spec: StreamSpec, send: Send, totals: StreamTotals
) -> None:
    """Sends the record of every row, then the summary; fills `totals` on the way.

    Raises:
        CallError: the bundle does not support the task; nothing was sent.
        BrokenInput: the body cannot be read any further; all records before that were sent.
    """
    queue: _Queue = asyncio.Queue(spec.max_pending)
    running: set[asyncio.Task[_RunChunk]] = set()
    feeding = asyncio.create_task(_feed(body, spec, queue, running))
    try:
        while (item := await queue.get()) is not None:
            if isinstance(item, Exception):
                raise item
            await _send_chunk(await item, spec, send, totals)
        await _send_end(spec, send, totals)
    finally:
        feeding.cancel()
        for task in running:
            task.cancel()


# --- input --------------------------------------------------------------------------------------


async def _feed(
    body: AsyncIterator[bytes],
    spec: StreamSpec,
    queue: _Queue,
    running: "set[asyncio.Task[_RunChunk]]",
) -> None:
    """Queues a task for each chunk, in order; then None, or the error that ended the input."""
    end: Exception | None = None
    try:
        async for rows, first_row, target_shape in _row_batches(body, spec):
            task = asyncio.create_task(_run(rows, first_row, target_shape, spec))
            running.add(task)
            task.add_done_callback(running.discard)
            await queue.put(task)
    except Exception as error:
        end = error
    await queue.put(end)


async def _row_batches(
    body: AsyncIterator[bytes], spec: StreamSpec
) -> AsyncIterator[tuple[RowBatch, int, TargetShape]]:
    """Yields (chunk, number of its first row, target shape, which the first rows decide)."""
    first_row, target_shape = 0, None
    async for chunk in _chunks(body, spec.reader):
        if target_shape is None and (shape := spec.reader.target_shape(chunk)) is not None:
            target_shape = _required_shape(spec.task, shape)
            check_task(spec.task, target_shape, spec.bundle_info)
            spec.reader.rows = spec.rows(target_shape)
        elif target_shape is None:  # a thousand lines that are no rows are not a thousand tasks
            spec.reader.rows = min(_MAX_UNREADABLE_ROWS, 2 * spec.reader.rows, spec.rows("one"))
        requirements = _requirements(spec, target_shape or "one")
        parse = partial(spec.reader.parse, chunk, first_row + 1, requirements)
        rows = _limit_targets(await spec.run_parse(parse), spec.max_targets)
        yield rows, first_row, target_shape or "one"
        first_row += len(rows)


async def _chunks(body: AsyncIterator[bytes], reader: StreamReader) -> AsyncIterator[Sized]:
    """Yields chunks as their bytes come, so that a client may wait for results before it sends."""
    async for data in body:
        for chunk in reader.feed(data):
            yield chunk
    for chunk in reader.end():
        yield chunk


def _required_shape(task: Task, shape: TargetShape) -> TargetShape:
    """Returns "one" for rows without targets, except for `probabilities`, which needs none."""
    return "one" if shape == "none" and task.name != "probabilities" else shape


def _requirements(spec: StreamSpec, target_shape: TargetShape) -> RowRequirements:
    """Returns the requirements on each row.

    In a columnar format a row may not have a list of targets unless all rows have one.
    """
    required = row_requirements(spec.task, target_shape == "none", spec.bundle_info)
    if required.targets == "any" and target_shape == "one" and spec.writer.columnar:
        return RowRequirements(spec.bundle_info, "one")
    return required


def _limit_targets(rows: RowBatch, max_targets: int) -> RowBatch:
    """Gives rows with too many targets an error: the size of their records would have no limit."""
    over = rows.counts > max_targets
    if not over.any():
        return rows
    row_errors = {
        int(i): RowError(
            "too_large", f"targets: expected at most {max_targets} in a row, got {rows.counts[i]}"
        )
        for i in np.flatnonzero(over)
    }
    kept = ~np.repeat(over, rows.counts)
    return replace(
        rows,
        target=rows.target[kept],
        counts=np.where(over, 0, rows.counts),
        row_errors={**rows.row_errors, **row_errors},
    )


# --- graph runs ---------------------------------------------------------------------------------


async def _run(
    rows: RowBatch, first_row: int, target_shape: TargetShape, spec: StreamSpec
) -> _RunChunk:
    search = with_searched_k(spec.task, spec.bundle_info)
    request = build_graph_request(rows, search, target_shape, first_row)
    if request is None:
        return _RunChunk(rows, target_shape, None, [])
    try:
        outputs = await spec.run_graph(request, first_row)
    except RowError as row_error:
        return _RunChunk(_fail_rows(rows, request, row_error), target_shape, None, [])
    return _RunChunk(rows, target_shape, request, outputs)


def _fail_rows(rows: RowBatch, request: GraphRequest, row_error: RowError) -> RowBatch:
    """Gives every row of a failed request the request's error."""
    row_errors = {int(i): row_error for i in request.positions}
    return replace(rows, row_errors={**row_errors, **rows.row_errors})


# --- output -------------------------------------------------------------------------------------


async def _send_chunk(chunk: _RunChunk, spec: StreamSpec, send: Send, totals: StreamTotals) -> None:
    results = await _results(chunk, spec)
    pieces = spec.writer.encode_rows(results, chunk.target_shape)
    while (piece := await spec.run_in_idle(partial(next, pieces, None))) is not None:
        await _send_hashed(piece, send, totals)
    totals.add(chunk.rows, results, spec.task)
    await _send_sequences(totals.pop_excess_sequences(), spec, send, totals)


async def _results(chunk: _RunChunk, spec: StreamSpec) -> RowResults:
    build = partial(
        build_results, chunk.rows, spec.task, spec.bundle_info, chunk.request, chunk.outputs
    )
    if sum(output.size for output in chunk.outputs) > _MAX_INLINE_NUMBERS:
        return await asyncio.to_thread(build)
    return await spec.run_in_idle(build)


async def _send_end(spec: StreamSpec, send: Send, totals: StreamTotals) -> None:
    await _send_hashed(spec.writer.opening(), send, totals)
    await _send_sequences(totals.pop_all_sequences(), spec, send, totals)
    await send(spec.writer.summary(totals.summary(spec.task)))


async def _send_sequences(
    reports: list[dict[str, Any]], spec: StreamSpec, send: Send, totals: StreamTotals
) -> None:
    if reports:
        await _send_hashed(spec.writer.sequences(reports), send, totals)


async def _send_hashed(piece: bytes, send: Send, totals: StreamTotals) -> None:
    totals.hash(piece)
    await send(piece)
