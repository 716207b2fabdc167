"""A job: rows in blocks, scored several at a time, into shards, into one output.

    input ─ blocks ─> parse, run, encode (on threads) ─> shard ─> ledger ─> output, in one rename

It may stop at any instant and be taken up again: the shards are ranges of rows that depend on
nothing but the order, so that its output is the same to the byte.
"""

import sqlite3
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from math import inf
from pathlib import Path
from typing import Any

from hsoftmax.scoring.errors import CallError, ScoringError
from hsoftmax.scoring.formats import Block, Position
from hsoftmax.scoring.formats.ndjson import flaw_lines
from hsoftmax.scoring.graph_request import Run
from hsoftmax.scoring.perplexity import Tally, tallies
from hsoftmax.scoring.results import score, without_flaws
from hsoftmax.scoring.row_batch import Id

from .assembly import Assembly
from .checkpoint import Ledger, Shard
from .committer import Settling, Written
from .duplicate_ids import without_repeats
from .finalize import deliver, finished, forgetting, is_complete, record
from .ordered_map import ordered_map
from .shards import Cut, Start
from .spec import Order, expect_same
from .workspace import Workspace, hold, remove, sync_file, whole, workspace_of, write_aside

# Called with the rows that are finished, those of them that failed, and the part of the input read.
Progress = Callable[[int, int, float], None]

# Called once all rows are in shards.
Finishing = Callable[[], None]

# Called with the rows of this run that are finished and failed, and where in the input it is.
Report = Callable[[int, int, Position], None]


# Whoever makes the shards from here to the end: written aside, in order.
Make = Callable[[Order, Workspace, Start, Report], Generator[Written, None, None]]


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
    order: Order,
    run: Run,
    *,
    resume: bool,
    threads: int,
    progress: Progress,
    finishing: Finishing = lambda: None,
) -> dict[str, Any]:
    """Do what is left of the job on threads of this process; its summary. Raises as `carry_out`."""
    make = partial(_make_here, run, threads)
    return carry_out(order, make, resume=resume, progress=progress, finishing=finishing)


def carry_out(
    order: Order,
    make: Make,
    *,
    resume: bool,
    progress: Progress,
    finishing: Finishing = lambda: None,
) -> dict[str, Any]:
    """Do what is left of the job, whoever makes its shards; its summary.

    Raises:
        CallError: there is an output already, or what is to be resumed is another job.
        ScoringError, OSError: it stopped; what is finished is kept.
    """
    if order.output.exists() and not resume:
        raise CallError(f"{order.output}: expected no such file, got one: remove it, or --resume")
    identity = order.identity()
    if resume and (done := finished(order, identity)) is not None:
        _clear_up(order.output)
        return done
    if order.output.is_dir() and not workspace_of(order.output).exists():
        # A file is replaced, but who knows what is in a folder.
        raise CallError(f"{order.output}: expected no such folder, got one: remove it")
    with hold(order.output) as workspace:
        try:
            with closing(_open_ledger(workspace, identity, resume)) as ledger, forgetting(ledger):
                if not is_complete(order.output, workspace, ledger):
                    with Assembly(order.delivery, workspace) as assembly:
                        made = _make_rest(order, make, workspace, ledger, assembly, progress)
                        finishing()
                        put = partial(assembly.result, partial(progress, *made, 1.0))
                        record(order, workspace, ledger, identity, put)
                return deliver(order.delivery, workspace, ledger)
        except sqlite3.Error as error:
            raise ScoringError(f"{workspace.ledger}: expected a ledger, got: {error}") from None


def _clear_up(output: Path) -> None:
    """What a job left that stopped when all but this was done."""
    if workspace_of(output).exists():
        with hold(output) as workspace:
            remove(workspace)


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


def _make_rest(
    order: Order,
    make: Make,
    workspace: Workspace,
    ledger: Ledger,
    assembly: Assembly,
    progress: Progress,
) -> tuple[int, int]:
    """(rows, failed) of all shards."""
    done = whole(workspace, ledger)
    for shard in done:
        assembly.add(shard)
    position = done[-1].end if done else order.source.begin()
    rows, failed = sum(s.rows for s in done), sum(s.failed for s in done)

    def report(more_rows: int, more_failed: int, end: Position) -> None:
        progress(rows + more_rows, failed + more_failed, order.source.fraction(end))

    report(0, 0, position)
    made = make(order, workspace, Start(len(done), rows, position), report)
    with closing(made), Settling(workspace, ledger, assembly.add) as settling:
        for written in made:
            settling.settle(written)
            rows, failed = rows + written.shard.rows, failed + written.shard.failed
    return rows, failed


def _make_here(
    run: Run, threads: int, order: Order, workspace: Workspace, start: Start, report: Report
) -> Generator[Written, None, None]:
    results = ordered_map(
        lambda piece: _score(piece, order, run), _pieces(order, start), threads=threads
    )
    with closing(results):
        for number, scored in groupby(results, key=lambda result: result.piece.shard):
            yield _write(workspace.aside(number), number, scored, report)


def make_shard(order: Order, run: Run, cut: Cut, aside: Path) -> Written:
    """One shard on this thread alone, its bytes on the disk. Raises ScoringError, OSError."""
    pieces = _pieces(order, cut.start, cut.start.first_row + order.shard_rows)
    scored = (_score(piece, order, run) for piece in pieces)
    written = _write(aside, cut.start.shard, scored, lambda rows, failed, end: None)
    if written.shard.rows != cut.rows:
        raise ScoringError(f"shard {cut.start.shard}: expected {cut.rows} rows, "
                           f"got {written.shard.rows}")  # fmt: skip
    sync_file(aside)
    return written


def _pieces(order: Order, start: Start, end: float = inf) -> Iterator[Piece]:
    """Blocks from here to that row, or to the last; none of them across two shards."""
    row, position = start.first_row, start.position
    while row < end:
        room = order.shard_rows - row % order.shard_rows
        block = order.source.read(position, min(order.batch, room))
        if block is None:
            return
        yield Piece(row // order.shard_rows, row, block)
        row, position = row + block.rows, block.end


def _score(piece: Piece, order: Order, run: Run) -> Scored:
    rows = order.source.parse(piece.block, order.reading)
    if order.repeated is not None:
        rows = without_repeats(rows, piece.first_row, order.repeated)
    records = score(rows, order.task, order.form, order.facts, first_row=piece.first_row, run=run)
    sums, layout = order.task.name == "perplexity", order.layout
    beside = flaw_lines(records, layout.id_name) if order.delivery.errors_beside else {}
    written = without_flaws(records) if order.apart and not order.format.mute else records
    return Scored(
        piece=piece,
        content=order.format.encode(written, layout),
        failed=len(records.flaws),
        tallies=tallies(rows, records, order.task.log_base) if sums else {},
        flaws=[line.decode() for _, line in sorted(beside.items())],
    )


def _write(aside: Path, number: int, scored: Iterable[Scored], report: Report) -> Written:
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

    size, sha256 = write_aside(aside, contents())
    shard = Shard(number, rows, rows - failed, failed, size, sha256, end)
    return Written(aside, shard, sums, flaws)
