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
from hsoftmax.scoring.formats import Position, RawBatch
from hsoftmax.scoring.formats.ndjson import error_lines
from hsoftmax.scoring.graph_request import GraphRunner
from hsoftmax.scoring.perplexity import Tally, tallies
from hsoftmax.scoring.results import score_rows, without_errors
from hsoftmax.scoring.row_batch import RowId

from .assembly import Assembler
from .checkpoint import CheckpointStore, Shard
from .committer import Committer, WrittenShard
from .duplicate_ids import mark_duplicates
from .finalize import commit_output, finished_summary, forget_corrupt_shard, is_assembled, publish
from .ordered_map import ordered_map
from .shards import ShardRange, ShardStart
from .spec import JobSpec, expect_same_job
from .workspace import (
    Workspace,
    intact_shards,
    lock_workspace,
    remove_workspace,
    sync_file,
    workspace_path,
    write_aside,
)

# Called with the rows that are finished, those of them that failed, and the part of the input read.
ProgressCallback = Callable[[int, int, float], None]

# Called once all rows are in shards.
ScoredCallback = Callable[[], None]

# Called with the rows of this run that are finished and failed, and where in the input it is.
PositionCallback = Callable[[int, int, Position], None]


# Whoever makes the shards from here to the end: written aside, in order.
ShardProducer = Callable[
    [JobSpec, Workspace, ShardStart, PositionCallback], Generator[WrittenShard, None, None]
]


@dataclass(frozen=True, slots=True)
class ShardPart:
    """A block of a shard; `first_row` counts from 0 over the whole input."""

    shard: int
    first_row: int
    raw_batch: RawBatch


@dataclass(frozen=True, slots=True)
class ScoredPart:
    """A piece's records as bytes, and what there is to know of them."""

    part: ShardPart
    content: bytes
    failed: int
    tallies: dict[RowId, Tally]
    row_errors: list[str]


def run_job(
    spec: JobSpec,
    run: GraphRunner,
    *,
    resume: bool,
    threads: int,
    progress: ProgressCallback,
    on_all_scored: ScoredCallback = lambda: None,
) -> dict[str, Any]:
    """Do what is left of the job on threads of this process; its summary. Raises as `carry_out`."""
    produce_shards = partial(_make_here, run, threads)
    return run_job_with(
        spec, produce_shards, resume=resume, progress=progress, on_all_scored=on_all_scored
    )


def run_job_with(
    spec: JobSpec,
    produce_shards: ShardProducer,
    *,
    resume: bool,
    progress: ProgressCallback,
    on_all_scored: ScoredCallback = lambda: None,
) -> dict[str, Any]:
    """Do what is left of the job, whoever makes its shards; its summary.

    Raises:
        CallError: there is an output already, or what is to be resumed is another job.
        ScoringError, OSError: it stopped; what is finished is kept.
    """
    if spec.output.exists() and not resume:
        raise CallError(f"{spec.output}: expected no such file, got one: remove it, or --resume")
    identity = spec.identity()
    if resume and (done := finished_summary(spec, identity)) is not None:
        _clear_up(spec.output)
        return done
    if spec.output.is_dir() and not workspace_path(spec.output).exists():
        # A file is replaced, but who knows what is in a folder.
        raise CallError(f"{spec.output}: expected no such folder, got one: remove it")
    with lock_workspace(spec.output) as workspace:
        try:
            with (
                closing(_open_checkpoint(workspace, identity, resume)) as checkpoint,
                forget_corrupt_shard(checkpoint),
            ):
                if not is_assembled(spec.output, workspace, checkpoint):
                    with Assembler(spec.output_spec, workspace) as assembler:
                        made = _make_rest(
                            spec, produce_shards, workspace, checkpoint, assembler, progress
                        )
                        on_all_scored()
                        put = partial(assembler.result, partial(progress, *made, 1.0))
                        commit_output(spec, workspace, checkpoint, identity, put)
                return publish(spec.output_spec, workspace, checkpoint)
        except sqlite3.Error as error:
            raise ScoringError(
                f"{workspace.checkpoint_path}: expected a ledger, got: {error}"
            ) from None


def _clear_up(output: Path) -> None:
    """What a job left that stopped when all but this was done."""
    if workspace_path(output).exists():
        with lock_workspace(output) as workspace:
            remove_workspace(workspace)


def _open_checkpoint(
    workspace: Workspace, identity: dict[str, Any], resume: bool
) -> CheckpointStore:
    """The ledger of this job, taken up or begun."""
    if resume:
        checkpoint = CheckpointStore(workspace.checkpoint_path)
        try:
            if (begun := checkpoint.identity()) is not None:
                expect_same_job(identity, begun)
                return checkpoint
        except (CallError, sqlite3.Error):
            checkpoint.close()
            raise
        checkpoint.close()
    workspace.clear()
    checkpoint = CheckpointStore(workspace.checkpoint_path)
    checkpoint.begin(identity)
    return checkpoint


def _make_rest(
    spec: JobSpec,
    produce_shards: ShardProducer,
    workspace: Workspace,
    checkpoint: CheckpointStore,
    assembler: Assembler,
    progress: ProgressCallback,
) -> tuple[int, int]:
    """(rows, failed) of all shards."""
    done = intact_shards(workspace, checkpoint)
    for shard in done:
        assembler.add(shard)
    position = done[-1].end if done else spec.reader.begin()
    rows, failed = sum(s.rows for s in done), sum(s.failed for s in done)

    def report(more_rows: int, more_failed: int, end: Position) -> None:
        progress(rows + more_rows, failed + more_failed, spec.reader.fraction(end))

    report(0, 0, position)
    made = produce_shards(spec, workspace, ShardStart(len(done), rows, position), report)
    with closing(made), Committer(workspace, checkpoint, assembler.add) as committer:
        for written in made:
            committer.commit(written)
            rows, failed = rows + written.shard.rows, failed + written.shard.failed
    return rows, failed


def _make_here(
    run: GraphRunner,
    threads: int,
    spec: JobSpec,
    workspace: Workspace,
    start: ShardStart,
    report: PositionCallback,
) -> Generator[WrittenShard, None, None]:
    results = ordered_map(
        lambda part: _score(part, spec, run), _pieces(spec, start), threads=threads
    )
    with closing(results):
        for number, scored in groupby(results, key=lambda result: result.part.shard):
            yield _write(workspace.aside(number), number, scored, report)


def make_shard(spec: JobSpec, run: GraphRunner, cut: ShardRange, aside: Path) -> WrittenShard:
    """One shard on this thread alone, its bytes on the disk. Raises ScoringError, OSError."""
    pieces = _pieces(spec, cut.start, cut.start.first_row + spec.shard_rows)
    scored = (_score(part, spec, run) for part in pieces)
    written = _write(aside, cut.start.shard, scored, lambda rows, failed, end: None)
    if written.shard.rows != cut.rows:
        raise ScoringError(f"shard {cut.start.shard}: expected {cut.rows} rows, "
                           f"got {written.shard.rows}")  # fmt: skip
    sync_file(aside)
    return written


def _pieces(spec: JobSpec, start: ShardStart, end: float = inf) -> Iterator[ShardPart]:
    """Blocks from here to that row, or to the last; none of them across two shards."""
    row, position = start.first_row, start.position
    while row < end:
        room = spec.shard_rows - row % spec.shard_rows
        raw_batch = spec.reader.read(position, min(spec.batch, room))
        if raw_batch is None:
            return
        yield ShardPart(row // spec.shard_rows, row, raw_batch)
        row, position = row + raw_batch.rows, raw_batch.end


def _score(part: ShardPart, spec: JobSpec, run: GraphRunner) -> ScoredPart:
    rows = spec.reader.parse(part.raw_batch, spec.requirements)
    if spec.duplicates is not None:
        rows = mark_duplicates(rows, part.first_row, spec.duplicates)
    results = score_rows(
        rows, spec.task, spec.target_shape, spec.bundle_info, first_row=part.first_row, run=run
    )
    sums, record_schema = spec.task.name == "perplexity", spec.record_schema
    beside = error_lines(results, record_schema.id_name) if spec.output_spec.has_error_file else {}
    written = without_errors(results) if spec.separate_errors and not spec.format.mute else results
    return ScoredPart(
        part=part,
        content=spec.format.encode(written, record_schema),
        failed=len(results.row_errors),
        tallies=tallies(rows, results, spec.task.log_base) if sums else {},
        row_errors=[line.decode() for _, line in sorted(beside.items())],
    )


def _write(
    aside: Path, number: int, scored: Iterable[ScoredPart], report: PositionCallback
) -> WrittenShard:
    """A shard's file, still aside, and what the ledger will say of it."""
    rows, failed, end = 0, 0, Position(0, 0, 1)
    sums: dict[RowId, Tally] = {}
    row_errors: list[str] = []

    def contents() -> Iterator[bytes]:
        nonlocal rows, failed, end
        for one in scored:
            rows, failed = rows + one.part.raw_batch.rows, failed + one.failed
            end = one.part.raw_batch.end
            row_errors.extend(one.row_errors)
            for name, tally in one.tallies.items():
                sums[name] = sums.get(name, Tally()) + tally
            yield one.content
            report(rows, failed, end)

    size, sha256 = write_aside(aside, contents())
    shard = Shard(number, rows, rows - failed, failed, size, sha256, end)
    return WrittenShard(aside, shard, sums, row_errors)
