"""A job: rows in blocks, scored several at a time, into shards, into one output.

    input ─ blocks ─> parse, run, encode (on threads) ─> shard ─> ledger ─> output, in one rename

It may stop at any instant and be taken up again: the shards are ranges of rows that depend on
nothing but the order, so that its output is the same to the byte.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from .asked import Run
from .errors import CallError, ScoringError
from .finish import finish, finished, is_complete
from .formats import Block, Position
from .formats.ndjson import flaw_lines
from .ledger import Ledger, Shard
from .order import Order, expect_same
from .perplexity import Tally, tallies
from .pipeline import ordered_map
from .records import score
from .rows import Id
from .settling import Settling, Written
from .workspace import Workspace, hold, whole, workspace_of, write_aside

# Called with the rows that are finished, those of them that failed, and the part of the input read.
Progress = Callable[[int, int, float], None]


@dataclass(frozen=True, slots=True)
class Piece:
    """A block of a shard; `first_row` counts from 0 over the whole input."""

    shard: int
    first_row: int
    block: Block


@dataclass(frozen=True, slots=True)
class Scored:
    """A piece's records as bytes, and what there is to know of them."""

    piece: Piece
    content: bytes
    failed: int
    tallies: dict[Id, Tally]
    flaws: list[str]


def run_job(
    order: Order, run: Run, *, resume: bool, threads: int, progress: Progress
) -> dict[str, Any]:
    """Do what is left of the job; its summary.

    Raises:
        CallError: there is an output already, or what is to be resumed is another job.
        ScoringError, OSError: it stopped; what is finished is kept.
    """
    if order.output.exists() and not resume:
        raise CallError(f"{order.output}: expected no such file, got one: remove it, or --resume")
    identity = order.identity()
    if resume and not workspace_of(order.output).exists():
        done = finished(order, identity)
        if done is not None:
            return done
        if order.output.is_dir():  # a file is replaced, but who knows what is in a folder
            raise CallError(f"{order.output}: expected no such folder, got one: remove it")
    with hold(order.output) as workspace:
        try:
            with closing(_open_ledger(workspace, identity, resume)) as ledger:
                if not is_complete(order, workspace, ledger):
                    _score_rest(order, run, workspace, ledger, threads, progress)
                return finish(order, workspace, ledger, identity)
        except sqlite3.Error as error:
            raise ScoringError(f"{workspace.ledger}: expected a ledger, got: {error}") from None


def _open_ledger(workspace: Workspace, identity: dict[str, Any], resume: bool) -> Ledger:
    """The ledger of this job, taken up or begun."""
    if resume:
        ledger = Ledger(workspace.ledger)
        try:
            if (begun := ledger.identity()) is not None:
                expect_same(identity, begun)
                return ledger
        except (CallError, sqlite3.Error):
            ledger.close()
            raise
        ledger.close()
    workspace.clear()
    ledger = Ledger(workspace.ledger)
    ledger.begin(identity)
    return ledger


def _score_rest(
    order: Order,
    run: Run,
    workspace: Workspace,
    ledger: Ledger,
    threads: int,
    progress: Progress,
) -> None:
    done = whole(workspace, ledger)
    position = done[-1].end if done else order.source.begin()
    rows, failed = sum(s.rows for s in done), sum(s.failed for s in done)

    def report(more_rows: int, more_failed: int, end: Position) -> None:
        progress(rows + more_rows, failed + more_failed, order.source.fraction(end))

    report(0, 0, position)
    results = ordered_map(
        lambda piece: _score(piece, order, run), _pieces(order, position, rows), threads=threads
    )
    with closing(results), Settling(workspace, ledger) as settling:
        for number, scored in groupby(results, key=lambda result: result.piece.shard):
            written = _write(workspace, number, scored, report)
            settling.settle(written)
            rows, failed = rows + written.shard.rows, failed + written.shard.failed


def _pieces(order: Order, position: Position, row: int) -> Iterator[Piece]:
    """Blocks from here to the end, none of them across two shards."""
    while True:
        room = order.shard_rows - row % order.shard_rows
        block = order.source.read(position, min(order.batch, room))
        if block is None:
            return
        yield Piece(row // order.shard_rows, row, block)
        row, position = row + block.rows, block.end


def _score(piece: Piece, order: Order, run: Run) -> Scored:
    rows = order.source.parse(piece.block, order.reading)
    records = score(rows, order.task, order.form, order.facts, first_row=piece.first_row, run=run)
    sums = order.task.name == "perplexity"
    return Scored(
        piece=piece,
        content=order.format.encode(records, order.layout),
        failed=len(records.flaws),
        tallies=tallies(rows, records, order.task.log_base) if sums else {},
        flaws=[line.decode() for line in flaw_lines(records).values()] if order.format.mute else [],
    )


def _write(
    workspace: Workspace,
    number: int,
    scored: Iterable[Scored],
    report: Callable[[int, int, Position], None],
) -> Written:
    """A shard's file, still aside, and what the ledger will say of it."""
    rows, failed, end = 0, 0, Position(0, 0, 1)
    sums: dict[Id, Tally] = {}
    flaws: list[str] = []

    def contents() -> Iterator[bytes]:
        nonlocal rows, failed, end
        for one in scored:
            rows, failed = rows + one.piece.block.rows, failed + one.failed
            end = one.piece.block.end
            flaws.extend(one.flaws)
            for name, tally in one.tallies.items():
                sums[name] = sums.get(name, Tally()) + tally
            yield one.content
            report(rows, failed, end)

    size, sha256 = write_aside(workspace.shard(number), contents())
    shard = Shard(number, rows, rows - failed, failed, size, sha256, end)
    return Written(shard, sums, flaws)
