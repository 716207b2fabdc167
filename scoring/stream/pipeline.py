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
from hsoftmax.scoring.bundle_info import Facts
from hsoftmax.scoring.errors import Flaw
from hsoftmax.scoring.graph_request import Asked, ask
from hsoftmax.scoring.results import Records, answered
from hsoftmax.scoring.row_batch import Reading, Rows, reading
from hsoftmax.scoring.task import Form, Kind, Task, check

from .summary import Totals

T = TypeVar("T")

_LONG = 2**17  # numbers that take about a millisecond to look at

# Runs what is asked of rows of which the first is this one, from 0. Raises Flaw where no row of
# them can be answered; what else it raises ends the stream.
RunAsync = Callable[[Asked, int], Awaitable[list[Array]]]
Give = Callable[[bytes], Awaitable[None]]


class Elsewhere(Protocol):
    """Calls a function of a millisecond or so when it holds nobody up."""

    async def __call__(self, function: Callable[[], T]) -> T: ...


class Intake(Protocol):
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
    def id_kind(self) -> Kind: ...

    def feed(self, data: bytes) -> Iterable[Sized]:
        """The chunks that end within these bytes, each as long as it has rows."""

    def end(self) -> Iterable[Sized]:
        """What is left, now that nothing follows."""

    def form(self, chunk: Any) -> Form | None:  # noqa: ANN401  the intake's own
        """How its rows name their targets; None if none can be read."""

    def parse(self, chunk: Any, first_line: int, reading: Reading) -> Rows:  # noqa: ANN401
        """Its rows, checked."""


class Outlet(Protocol):
    """Records as bytes, in pieces that take about a millisecond to make.

    Attributes:
        columnar: every record has fields of the same kind, those of the first one
    """

    columnar: bool

    def records(self, records: Records, form: Form) -> Iterator[bytes]: ...

    def opening(self) -> bytes:
        """What must come before all that is no record, unless records came already."""

    def sequences(self, reports: list[dict[str, Any]]) -> bytes: ...

    def summary(self, said: Mapping[str, Any]) -> bytes:
        """The end."""

    def failure(self, said: Mapping[str, Any]) -> bytes:
        """What stands where the rest should be."""


@dataclass(frozen=True, slots=True)
class StreamTask:
    """What is asked of a stream's rows, and who does which part of it.

    Attributes:
        rows: how many a chunk may have, by how its rows name their targets
        ahead: how many chunks may be on their way
        most_targets: of a row
    """

    task: Task
    facts: Facts
    intake: Intake
    outlet: Outlet
    run: RunAsync
    elsewhere: Elsewhere
    rows: Callable[[Form], int]
    ahead: int
    most_targets: int


@dataclass(frozen=True, slots=True)
class _Ran:
    """A chunk whose graph was run, if there was anything to ask."""

    rows: Rows
    form: Form
    question: Asked | None
    outputs: list[Array]


_Queue = asyncio.Queue["asyncio.Task[_Ran] | Exception | None"]


async def score_stream(
    body: AsyncIterator[bytes], asked: StreamTask, give: Give, totals: Totals
) -> None:
    """Give every row's record and the summary; `totals` is filled on the way.

    Raises:
        CallError: the bundle cannot answer the task; before anything is given.
        BrokenInput: the body cannot be read on; after all that came before it.
    """
    queue: _Queue = asyncio.Queue(asked.ahead)
    running: set[asyncio.Task[_Ran]] = set()
    feeding = asyncio.create_task(_feed(body, asked, queue, running))
    try:
        while (item := await queue.get()) is not None:
            if isinstance(item, Exception):
                raise item
            await _give(await item, asked, give, totals)
        await _finish(asked, give, totals)
    finally:
        feeding.cancel()
        for task in running:
            task.cancel()


# --- in -----------------------------------------------------------------------------------------


async def _feed(
    body: AsyncIterator[bytes],
    asked: StreamTask,
    queue: _Queue,
    running: "set[asyncio.Task[_Ran]]",
) -> None:
    """Put a task for each chunk, in order; and at the end None, or why there is no more."""
    end: Exception | None = None
    try:
        async for rows, first, form in _rows(body, asked):
            task = asyncio.create_task(_run(rows, first, form, asked))
            running.add(task)
            task.add_done_callback(running.discard)
            await queue.put(task)
    except Exception as error:
        end = error
    await queue.put(end)


async def _rows(
    body: AsyncIterator[bytes], asked: StreamTask
) -> AsyncIterator[tuple[Rows, int, Form]]:
    """Chunks with the number of their first row, and the form that the first rows decided."""
    first, form = 0, None
    async for chunk in _cut(body, asked.intake):
        if form is None and (found := asked.intake.form(chunk)) is not None:
            form = _settled(asked.task, found)
            check(asked.task, form, asked.facts)
            asked.intake.rows = asked.rows(form)
        wanted = _reading(asked, form or "one")
        rows = await asked.elsewhere(partial(asked.intake.parse, chunk, first + 1, wanted))
        yield _bounded(rows, asked.most_targets), first, form or "one"
        first += len(rows)


async def _cut(body: AsyncIterator[bytes], intake: Intake) -> AsyncIterator[Sized]:
    """What has come, at once: a sender that waits for answers gets them."""
    async for data in body:
        for chunk in intake.feed(data):
            yield chunk
    for chunk in intake.end():
        yield chunk


def _settled(task: Task, found: Form) -> Form:
    """Only `probabilities` may be asked without targets."""
    return "one" if found == "none" and task.name != "probabilities" else found


def _reading(asked: StreamTask, form: Form) -> Reading:
    """In columns, one row's target is a list only if all are."""
    wanted = reading(asked.task, form == "none", asked.facts)
    if wanted.targets == "any" and form == "one" and asked.outlet.columnar:
        return Reading(asked.facts, "one")
    return wanted


def _bounded(rows: Rows, most: int) -> Rows:
    """Rows with more targets than that are wrong: their records would have no bound."""
    over = rows.counts > most
    if not over.any():
        return rows
    flaws = {
        int(i): Flaw(
            "too_large", f"targets: expected at most {most} in a row, got {rows.counts[i]}"
        )
        for i in np.flatnonzero(over)
    }
    kept = ~np.repeat(over, rows.counts)
    return replace(
        rows,
        target=rows.target[kept],
        counts=np.where(over, 0, rows.counts),
        flaws={**rows.flaws, **flaws},
    )


# --- through ------------------------------------------------------------------------------------


async def _run(rows: Rows, first: int, form: Form, asked: StreamTask) -> _Ran:
    question = ask(rows, asked.task, form, first)
    if question is None:
        return _Ran(rows, form, None, [])
    try:
        return _Ran(rows, form, question, await asked.run(question, first))
    except Flaw as flaw:
        return _Ran(_spoilt(rows, question, flaw), form, None, [])


def _spoilt(rows: Rows, asked: Asked, flaw: Flaw) -> Rows:
    """What was asked has no answer: these rows say so, each in its place."""
    return replace(rows, flaws={**{int(i): flaw for i in asked.positions}, **rows.flaws})


# --- out ----------------------------------------------------------------------------------------


async def _give(ran: _Ran, asked: StreamTask, give: Give, totals: Totals) -> None:
    records = await _answered(ran, asked)
    pieces = asked.outlet.records(records, ran.form)
    while (piece := await asked.elsewhere(partial(next, pieces, None))) is not None:
        await _give_hashed(piece, give, totals)
    totals.add(ran.rows, records, asked.task)
    await _give_sequences(totals.ended(), asked, give, totals)


async def _answered(ran: _Ran, asked: StreamTask) -> Records:
    answer = partial(answered, ran.rows, asked.task, asked.facts, ran.question, ran.outputs)
    if sum(output.size for output in ran.outputs) > _LONG:
        return await asyncio.to_thread(answer)
    return await asked.elsewhere(answer)


async def _finish(asked: StreamTask, give: Give, totals: Totals) -> None:
    await _give_hashed(asked.outlet.opening(), give, totals)
    await _give_sequences(totals.rest(), asked, give, totals)
    await give(asked.outlet.summary(totals.summary(asked.task)))


async def _give_sequences(
    reports: list[dict[str, Any]], asked: StreamTask, give: Give, totals: Totals
) -> None:
    if reports:
        await _give_hashed(asked.outlet.sequences(reports), give, totals)


async def _give_hashed(piece: bytes, give: Give, totals: Totals) -> None:
    totals.hash(piece)
    await give(piece)
