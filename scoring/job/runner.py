"""Runs a job: reads rows, scores several batches at a time, writes shards, publishes one output.

    input ─ batches ─> parse, run, encode (threads) ─> shard ─> checkpoint ─> output, one rename

A job may stop at any instant and be resumed. A shard is a range of rows that depends on the job's
specification alone, so a resumed job writes the same output to the byte.
"""

import sqlite3
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from math import inf
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hsoftmax.scoring.errors import CallError, RowError, ScoringError
from hsoftmax.scoring.failures import FailuresByCode, add_failures, count_failures
from hsoftmax.scoring.formats import Position, RawBatch
from hsoftmax.scoring.formats.ndjson import error_lines
from hsoftmax.scoring.graph_request import GraphRunner
from hsoftmax.scoring.perplexity import Tally, tally_sequences
from hsoftmax.scoring.requirements import RowId
from hsoftmax.scoring.results import RowResults, score_rows, without_errors
from hsoftmax.scoring.row_batch import RowBatch, fail_rows

from .assembly import Assembler
from .checkpoint import CheckpointStore, Shard
from .committer import Committer, WrittenShard
from .duplicate_ids import mark_duplicates
from .finalize import commit_output, finished_summary, is_assembled, publish
from .job_run import JobRun, open_run
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
    write_temp_file,
)

# Called with the job's finished rows, its failed rows, and the fraction of the input that was read.
ProgressCallback = Callable[[int, int, float], None]

# Called once, when all rows are in shards.
ScoredCallback = Callable[[], None]

# Called with the finished rows and failed rows of this run, and its position in the input.
PositionCallback = Callable[[int, int, Position], None]

# Scores a part of a job. It runs on several threads.
PartScorer = Callable[["ShardPart", JobSpec], "ScoredPart"]

# Makes the shards from a start to the end of the input, in order, in temporary files.
ShardProducer = Callable[
    [JobSpec, Workspace, ShardStart, PositionCallback], Generator[WrittenShard, None, None]
]


@dataclass(frozen=True, slots=True)
class ShardPart:
    """A batch of a shard's rows; `first_row` counts from 0 over the whole input."""

    shard: int
    first_row: int
    raw_batch: RawBatch


@dataclass(frozen=True, slots=True)
class ScoredPart:
    """The encoded records of a part, with its counts and sums."""

    part: ShardPart
    content: bytes
    failed: int
    tallies: dict[RowId, Tally]
    error_records: list[str]
    failures: FailuresByCode = field(default_factory=dict)


def run_job(
    spec: JobSpec,
    run_graph: GraphRunner,
    *,
    resume: bool,
    threads: int,
    progress: ProgressCallback,
    on_all_scored: ScoredCallback = lambda: None,
) -> dict[str, Any]:
    """Runs a job on threads of this process; returns its summary. Raises as `run_job_with`."""
    return run_job_by(
        spec, partial(_score, run_graph=run_graph), resume=resume, threads=threads,
        progress=progress, on_all_scored=on_all_scored,
    )  # fmt: skip


def run_job_by(
    spec: JobSpec,
    score: PartScorer,
    *,
    resume: bool,
    threads: int,
    progress: ProgressCallback,
    on_all_scored: ScoredCallback = lambda: None,
) -> dict[str, Any]:
    """Runs a job whose parts `score` scores; returns its summary. Raises as `run_job_with`."""
    produce_shards = partial(_produce_shards, score, threads)
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
    """Runs the unfinished part of a job with any producer of shards; returns its summary.

    Raises:
        CallError: there is an output already, or the job to be resumed is another one.
        ScoringError, OSError: it stopped; the finished shards are kept.
    """
    if spec.output.exists() and not resume:
        raise CallError(f"{spec.output}: expected no such file, got one: remove it, or --resume")
    identity = spec.identity()
    if resume and (summary := finished_summary(spec, identity)) is not None:
        _remove_leftovers(spec.output)
        return summary
    if spec.output.is_dir() and not workspace_path(spec.output).exists():
        # An old file may be replaced, but an old folder may hold files of others.
        raise CallError(f"{spec.output}: expected no such folder, got one: remove it")
    with open_run(spec.output_spec, partial(_open_checkpoint, identity, resume)) as run:
        if not is_assembled(run):
            with Assembler(run.output, run.workspace) as assembler:
                counts = _produce_missing(spec, run, produce_shards, assembler, progress)
                on_all_scored()
                on_wait = partial(progress, *counts, 1.0)
                commit_output(spec, run, partial(assembler.result, on_wait))
        return publish(run)


def _remove_leftovers(output: Path) -> None:
    """Removes the workspace of a job that stopped after it had published its output."""
    if workspace_path(output).exists():
        with lock_workspace(output) as workspace:
            remove_workspace(workspace)


def _open_checkpoint(
    identity: dict[str, Any], resume: bool, workspace: Workspace
) -> CheckpointStore:
    """Opens the checkpoint of the job to be resumed, or begins a new one in an empty workspace."""
    if resume:
        checkpoint = CheckpointStore(workspace.checkpoint_path)
        try:
            if (begun := checkpoint.identity()) is not None:
                expect_same_job(identity, begun)
                if begun.keys() < identity.keys():
                    checkpoint.replace_identity(identity)
                return checkpoint
        except (CallError, sqlite3.Error):
            checkpoint.close()
            raise
        checkpoint.close()
    workspace.clear()
    checkpoint = CheckpointStore(workspace.checkpoint_path)
    checkpoint.begin(identity)
    return checkpoint


def _produce_missing(
    spec: JobSpec,
    run: JobRun,
    produce_shards: ShardProducer,
    assembler: Assembler,
    progress: ProgressCallback,
) -> tuple[int, int]:
    """Produces and commits the missing shards. Returns (rows, failed) of all shards."""
    finished = intact_shards(run.workspace, run.checkpoint)
    for shard in finished:
        assembler.add(shard)
    position = finished[-1].end if finished else spec.reader.begin()
    rows, failed = sum(s.rows for s in finished), sum(s.failed for s in finished)

    def report(more_rows: int, more_failed: int, end: Position) -> None:
        progress(rows + more_rows, failed + more_failed, spec.reader.fraction(end))

    report(0, 0, position)
    start = ShardStart(len(finished), rows, position)
    shards = produce_shards(spec, run.workspace, start, report)
    with closing(shards), Committer(run.workspace, run.checkpoint, assembler.add) as committer:
        for written in shards:
            committer.commit(written)
            rows, failed = rows + written.shard.rows, failed + written.shard.failed
    return rows, failed


def _produce_shards(
    score: PartScorer,
    threads: int,
    spec: JobSpec,
    workspace: Workspace,
    start: ShardStart,
    report: PositionCallback,
) -> Generator[WrittenShard, None, None]:
    """Makes shards on threads of this process: a `ShardProducer` once the first two are bound."""
    scored_parts = ordered_map(lambda part: score(part, spec), _parts(spec, start), threads=threads)
    with closing(scored_parts):
        for number, scored in groupby(scored_parts, key=lambda scored: scored.part.shard):
            yield _write(workspace.temp_shard(number), number, scored, report)


def make_shard(
    spec: JobSpec, run_graph: GraphRunner, shard_range: ShardRange, temp_path: Path
) -> WrittenShard:
    """Makes one shard on the calling thread and syncs its file. Raises ScoringError, OSError."""
    start = shard_range.start
    parts = _parts(spec, start, start.first_row + spec.shard_rows)
    scored = (_score(part, spec, run_graph) for part in parts)
    written = _write(temp_path, start.shard, scored, lambda rows, failed, end: None)
    if written.shard.rows != shard_range.rows:
        raise ScoringError(f"shard {start.shard}: expected {shard_range.rows} rows, "
                           f"got {written.shard.rows}")  # fmt: skip
    sync_file(temp_path)
    return written


def _parts(spec: JobSpec, start: ShardStart, end: float = inf) -> Iterator[ShardPart]:
    """Yields parts from `start` to row `end`, or to the last row; none lies in two shards."""
    row, position = start.first_row, start.position
    while row < end:
        rows_left = spec.shard_rows - row % spec.shard_rows
        raw_batch = spec.reader.read(position, min(spec.batch, rows_left))
        if raw_batch is None:
            return
        yield ShardPart(row // spec.shard_rows, row, raw_batch)
        row, position = row + raw_batch.rows, raw_batch.end


def score_part(
    part: ShardPart,
    spec: JobSpec,
    run_graph: GraphRunner,
    row_errors: Mapping[int, RowError] = MappingProxyType({}),
) -> tuple[RowBatch, RowResults]:
    """Parses and scores the rows of a part, except those that fail with `row_errors`."""
    rows = fail_rows(spec.reader.parse(part.raw_batch, spec.requirements), row_errors)
    if spec.duplicates is not None:
        rows = mark_duplicates(rows, part.first_row, spec.duplicates)
    results = score_rows(
        rows, spec.task, spec.target_shape, spec.bundle_info,
        first_row=part.first_row, run_graph=run_graph,
    )  # fmt: skip
    return rows, results


def _score(part: ShardPart, spec: JobSpec, run_graph: GraphRunner) -> ScoredPart:
    rows, results = score_part(part, spec, run_graph)
    schema, has_tallies = spec.record_schema, spec.task.name == "perplexity"
    errors = error_lines(results, schema.id_name) if spec.output_spec.has_error_file else {}
    drop_errors = spec.separate_errors and spec.format.holds_errors
    return ScoredPart(
        part=part,
        content=spec.format.encode(without_errors(results) if drop_errors else results, schema),
        failed=len(results.row_errors),
        tallies=tally_sequences(rows, results, spec.task.log_base) if has_tallies else {},
        error_records=[line.decode() for _, line in sorted(errors.items())],
        failures=count_failures(results),
    )


def _write(
    temp_path: Path, number: int, scored_parts: Iterable[ScoredPart], report: PositionCallback
) -> WrittenShard:
    """Writes a shard's temporary file, and adds up its parts for the checkpoint."""
    rows, failed, end = 0, 0, Position(0, 0, 1)
    tallies: dict[RowId, Tally] = {}
    error_records: list[str] = []
    failures: list[FailuresByCode] = []

    def contents() -> Iterator[bytes]:
        nonlocal rows, failed, end
        for scored in scored_parts:
            rows, failed = rows + scored.part.raw_batch.rows, failed + scored.failed
            end = scored.part.raw_batch.end
            error_records.extend(scored.error_records)
            failures.append(scored.failures)
            for name, tally in scored.tallies.items():
                tallies[name] = tallies.get(name, Tally()) + tally
            yield scored.content
            report(rows, failed, end)

    size, sha256 = write_temp_file(temp_path, contents())
    shard = Shard(number, rows, rows - failed, failed, size, sha256, end)
    return WrittenShard(temp_path, shard, tallies, error_records, add_failures(failures))
