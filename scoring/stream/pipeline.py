"""A stream of rows as a stream of records, some chunks ahead of who takes them.

    bytes ─ Intake ─> chunks of rows ─ run, a few at a time ─> in order ─ Outlet ─> bytes

Nothing is read while as many chunks are on their way as may be: who takes slowly slows the sender.
The last that is given is a summary with the SHA-256 of all before it: a stream that is cut cannot
pass for one that ended.
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
from hsoftmax.scoring.results import RowResults, build_results
from hsoftmax.scoring.row_batch import RowBatch, RowRequirements, row_requirements
from hsoftmax.scoring.task import TargetShape, Task, ValueKind, check_task

from .summary import StreamTotals

T = TypeVar("T")

_LONG = 2**17  # numbers that take about a millisecond to look at

# Runs what is asked of rows of which the first is this one, from 0. Raises Flaw where no row of
# them can be answered; what else it raises ends the stream.
AsyncGraphRunner = Callable[[GraphRequest, int], Awaitable[list[Array]]]
SendPiece = Callable[[bytes], Awaitable[None]]


class RunInIdle(Protocol):
    """Calls a function of a millisecond or so when it holds nobody up."""

    async def __call__(self, function: Callable[[], T]) -> T: ...


class StreamReader(Protocol):
    """Bytes that come in any pieces, as chunks of rows.

    Attributes:
        rows: how many the next chunks may have
        id_kind: "int64" where every id is an integer, else "string"

    Raises:
        BrokenInput: what comes cannot be read on.
        CallError: none of it can be what was asked for.
    """

    rows: int

    @property
    def id_kind(self) -> ValueKind: ...

    def feed(self, data: bytes) -> Iterable[Sized]:
        """The chunks that end within these bytes, each as long as it has rows."""

    def end(self) -> Iterable[Sized]:
        """What is left, now that nothing follows."""

    def target_shape(self, chunk: Any) -> TargetShape | None:  # noqa: ANN401  the intake's own
        """How its rows name their targets; None if none can be read."""

    def parse(self, chunk: Any, first_line: int, requirements: RowRequirements) -> RowBatch:  # noqa: ANN401
        """Its rows, checked."""


class StreamWriter(Protocol):
    """Records as bytes, in pieces that take about a millisecond to make.

    Attributes:
        columnar: every record has fields of the same kind, those of the first one
    """

    columnar: bool

    def encode_rows(self, results: RowResults, target_shape: TargetShape) -> Iterator[bytes]: ...

    def opening(self) -> bytes:
        """What must come before all that is no record, unless records came already."""

    def sequences(self, reports: list[dict[str, Any]]) -> bytes: ...

    def summary(self, said: Mapping[str, Any]) -> bytes:
        """The end."""

    def failure(self, said: Mapping[str, Any]) -> bytes:
        """What stands where the rest should be."""


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """What is asked of a stream's rows, and who does which part of it.

    Attributes:
        rows: how many a chunk may have, by how its rows name their targets
        ahead: how many chunks may be on their way
        most_targets: of a row
    """

    task: Task
    bundle_info: BundleInfo
    reader: StreamReader
    writer: StreamWriter
    run: AsyncGraphRunner
    run_in_idle: RunInIdle
    rows: Callable[[TargetShape], int]
    max_pending: int
    max_targets: int


@dataclass(frozen=True, slots=True)
class _Ran:
    """A chunk whose graph was run, if there was anything to ask."""

    rows: RowBatch
    target_shape: TargetShape
    request: GraphRequest | None
    outputs: list[Array]


_Queue = asyncio.Queue["asyncio.Task[_Ran] | Exception | None"]


async def score_stream(
    body: AsyncIterator[bytes], spec: StreamSpec, give: SendPiece, totals: StreamTotals
) -> None:
    """Give every row's record and the summary; `totals` is filled on the way.

    Raises:
        CallError: the bundle cannot answer the task; before anything is given.
        BrokenInput: the body cannot be read on; after all that came before it.
    """
    queue: _Queue = asyncio.Queue(spec.max_pending)
    running: set[asyncio.Task[_Ran]] = set()
    feeding = asyncio.create_task(_feed(body, spec, queue, running))
    try:
        while (item := await queue.get()) is not None:
            if isinstance(item, Exception):
                raise item
            await _give(await item, spec, give, totals)
        await _finish(spec, give, totals)
    finally:
        feeding.cancel()
        for task in running:
            task.cancel()


# --- in -----------------------------------------------------------------------------------------


async def _feed(
    body: AsyncIterator[bytes],
    spec: StreamSpec,
    queue: _Queue,
    running: "set[asyncio.Task[_Ran]]",
) -> None:
    """Put a task for each chunk, in order; and at the end None, or why there is no more."""
    end: Exception | None = None
    try:
        async for rows, first, target_shape in _rows(body, spec):
            task = asyncio.create_task(_run(rows, first, target_shape, spec))
            running.add(task)
            task.add_done_callback(running.discard)
            await queue.put(task)
    except Exception as error:
        end = error
    await queue.put(end)


async def _rows(
    body: AsyncIterator[bytes], spec: StreamSpec
) -> AsyncIterator[tuple[RowBatch, int, TargetShape]]:
    """Chunks with the number of their first row, and the form that the first rows decided."""
    first, target_shape = 0, None
    async for chunk in _cut(body, spec.reader):
        if target_shape is None and (found := spec.reader.target_shape(chunk)) is not None:
            target_shape = _settled(spec.task, found)
            check_task(spec.task, target_shape, spec.bundle_info)
            spec.reader.rows = spec.rows(target_shape)
        wanted = _reading(spec, target_shape or "one")
        rows = await spec.run_in_idle(partial(spec.reader.parse, chunk, first + 1, wanted))
        yield _bounded(rows, spec.max_targets), first, target_shape or "one"
        first += len(rows)


async def _cut(body: AsyncIterator[bytes], reader: StreamReader) -> AsyncIterator[Sized]:
    """What has come, at once: a sender that waits for answers gets them."""
    async for data in body:
        for chunk in reader.feed(data):
            yield chunk
    for chunk in reader.end():
        yield chunk


def _settled(task: Task, found: TargetShape) -> TargetShape:
    """Only `probabilities` may be asked without targets."""
    return "one" if found == "none" and task.name != "probabilities" else found


def _reading(spec: StreamSpec, target_shape: TargetShape) -> RowRequirements:
    """In columns, one row's target is a list only if all are."""
    wanted = row_requirements(spec.task, target_shape == "none", spec.bundle_info)
    if wanted.targets == "any" and target_shape == "one" and spec.writer.columnar:
        return RowRequirements(spec.bundle_info, "one")
    return wanted


def _bounded(rows: RowBatch, most: int) -> RowBatch:
    """Rows with more targets than that are wrong: their records would have no bound."""
    over = rows.counts > most
    if not over.any():
        return rows
    row_errors = {
        int(i): RowError(
            "too_large", f"targets: expected at most {most} in a row, got {rows.counts[i]}"
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


# --- through ------------------------------------------------------------------------------------


async def _run(rows: RowBatch, first: int, target_shape: TargetShape, spec: StreamSpec) -> _Ran:
    request = build_graph_request(rows, spec.task, target_shape, first)
    if request is None:
        return _Ran(rows, target_shape, None, [])
    try:
        return _Ran(rows, target_shape, request, await spec.run(request, first))
    except RowError as row_error:
        return _Ran(_spoilt(rows, request, row_error), target_shape, None, [])


def _spoilt(rows: RowBatch, spec: GraphRequest, row_error: RowError) -> RowBatch:
    """What was asked has no answer: these rows say so, each in its place."""
    return replace(
        rows, row_errors={**{int(i): row_error for i in spec.positions}, **rows.row_errors}
    )


# --- out ----------------------------------------------------------------------------------------


async def _give(ran: _Ran, spec: StreamSpec, give: SendPiece, totals: StreamTotals) -> None:
    results = await _answered(ran, spec)
    pieces = spec.writer.encode_rows(results, ran.target_shape)
    while (piece := await spec.run_in_idle(partial(next, pieces, None))) is not None:
        await _give_hashed(piece, give, totals)
    totals.add(ran.rows, results, spec.task)
    await _give_sequences(totals.ended(), spec, give, totals)


async def _answered(ran: _Ran, spec: StreamSpec) -> RowResults:
    answer = partial(build_results, ran.rows, spec.task, spec.bundle_info, ran.request, ran.outputs)
    if sum(output.size for output in ran.outputs) > _LONG:
        return await asyncio.to_thread(answer)
    return await spec.run_in_idle(answer)


async def _finish(spec: StreamSpec, give: SendPiece, totals: StreamTotals) -> None:
    await _give_hashed(spec.writer.opening(), give, totals)
    await _give_sequences(totals.rest(), spec, give, totals)
    await give(spec.writer.summary(totals.summary(spec.task)))


async def _give_sequences(
    reports: list[dict[str, Any]], spec: StreamSpec, give: SendPiece, totals: StreamTotals
) -> None:
    if reports:
        await _give_hashed(spec.writer.sequences(reports), give, totals)


async def _give_hashed(piece: bytes, give: SendPiece, totals: StreamTotals) -> None:
    totals.hash(piece)
    await give(piece)
