"""Ends a job: checks the row counts, renames the output into place, writes the summary beside it.

`runner` calls it when all shards are finished, and the service for jobs that end early.
"""

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import orjson

from hsoftmax.scoring.errors import InputChanged, ScoringError
from hsoftmax.scoring.failures import report_failures
from hsoftmax.scoring.perplexity import Tally

from .assembly import assemble_output
from .checkpoint import CheckpointStore, Shard
from .job_run import JobRun, open_run
from .output import OutputSpec
from .spec import JobSpec, expect_same_job, fingerprint
from .workspace import (
    Workspace,
    intact_shards,
    lock_workspace,
    remove_workspace,
    rename_durably,
    workspace_path,
)

# Writes all finished shards as one temporary output. Returns its SHA-256.
AssembleOutput = Callable[[], str]


def summary_path(output: Path) -> Path:
    return output.with_name(output.name + ".summary.json")


def sequences_path(output: Path) -> Path:
    return output.with_name(output.name + ".sequences.ndjson")


def errors_path(output: Path) -> Path:
    return output.with_name(output.name + ".errors.ndjson")


def is_assembled(run: JobRun) -> bool:
    """True if the output is assembled, so that only publishing and cleaning up are left."""
    summary = run.checkpoint.summary()
    if summary is None:
        return False
    return run.workspace.assembled.exists() or _is_whole(run.output.path, summary)


def commit_output(spec: JobSpec, run: JobRun, assemble: AssembleOutput) -> None:
    """Assembles the output and records its summary.

    Raises:
        InputChanged: the input is not what it was when the job began.
        ScoringError: the shards do not hold all rows of the input.
    """
    if fingerprint(spec.reader.files) != run.identity["input"]:
        raise InputChanged("input: expected it to stay as it was, got a change while it was read")
    _expect_all_rows(spec, run.checkpoint.shards())
    _commit_assembled(run, assemble)


def finalize_partial(output: OutputSpec) -> dict[str, Any] | None:
    """Publishes the finished shards of a job that will not continue; returns its summary.

    Returns None if no shard is finished. It needs neither the input nor the bundle. It may be
    called again if an earlier call was interrupted.

    Raises:
        CorruptShard: a shard was corrupt and has been dropped; call this again.
        ScoringError, OSError: it stopped; the finished shards are kept.
    """
    if not workspace_path(output.path).exists():
        return _summary_if_whole(output.path)
    with open_run(output, lambda workspace: CheckpointStore(workspace.checkpoint_path)) as run:
        return _finalize(run)


def _finalize(run: JobRun) -> dict[str, Any] | None:
    if run.checkpoint.identity() is None:
        return _summary_if_whole(run.output.path)
    if not is_assembled(run):
        if not (shards := intact_shards(run.workspace, run.checkpoint)):
            return _summary_if_whole(run.output.path)
        _commit_assembled(run, lambda: assemble_output(run.output, run.workspace, shards))
    return publish(run)


def _commit_assembled(run: JobRun, assemble: AssembleOutput) -> None:
    shards = run.checkpoint.shards()
    _expect_sums(shards)
    sha256 = assemble()
    if run.output.is_folder:  # a folder cannot be renamed onto another
        shutil.rmtree(run.workspace.assembled, ignore_errors=True)
    rename_durably(run.workspace.temp_assembled, run.workspace.assembled)
    run.checkpoint.assembled(_summary(run, shards, sha256))


def publish(run: JobRun) -> dict[str, Any]:
    """Renames the assembled output into place and removes the workspace; returns the summary.

    It may be called again for a job that was interrupted in here.
    """
    summary = run.checkpoint.summary()
    if summary is None:
        raise ScoringError(
            f"{run.workspace.checkpoint_path}: expected the output's summary, got none"
        )
    if run.workspace.assembled.exists():
        _write_side_files(run, summary)
        rename_durably(run.workspace.assembled, run.output.path)
    remove_workspace(run.workspace)
    return summary


def finished_summary(spec: JobSpec, identity: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the summary if this very job wrote the output that is there, else None.

    Raises:
        CallError: another job wrote it.
    """
    summary = _read_summary(spec.output)
    if summary is None or not spec.output.exists():
        return None
    expect_same_job(identity, summary["job"])
    return summary if _is_whole(spec.output, summary) else None


def begun_identity(output: Path) -> dict[str, Any] | None:
    """Returns the identity of the job at this output, finished or not; None if there is none.

    Raises:
        CallError: another process is at this output.
        NewerSchema: a newer version of hsoftmax began the job.
    """
    if Workspace(workspace_path(output)).checkpoint_path.exists():
        with (
            lock_workspace(output) as workspace,
            suppress(sqlite3.Error),  # the run itself reports it
            closing(CheckpointStore(workspace.checkpoint_path)) as checkpoint,
        ):
            return checkpoint.identity()
    summary = _read_summary(output)
    return None if summary is None else dict(summary["job"])


def _summary_if_whole(output: Path) -> dict[str, Any] | None:
    """Returns the summary beside an output that is there and has the right size, else None."""
    summary = _read_summary(output)
    return summary if summary is not None and _is_whole(output, summary) else None


def _read_summary(output: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(summary_path(output).read_text("utf-8")))
    except (OSError, ValueError):
        return None


def _is_whole(output: Path, summary: dict[str, Any]) -> bool:
    return output.exists() and _size(output) == summary["size"]


def _files(output: Path) -> list[Path]:
    return sorted(output.iterdir()) if output.is_dir() else [output]


def _size(output: Path) -> int:
    return sum(path.stat().st_size for path in _files(output))


def _expect_all_rows(spec: JobSpec, shards: list[Shard]) -> None:
    """Raises ScoringError unless the shards have as many rows as the input says it has."""
    rows = sum(shard.rows for shard in shards)
    if spec.reader.total not in (None, rows):
        raise ScoringError(f"input: expected {spec.reader.total} rows, got {rows}")


def _expect_sums(shards: list[Shard]) -> None:
    """Raises ScoringError unless each row of each shard was either scored or failed."""
    for shard in shards:
        if shard.rows != shard.scored + shard.failed:
            raise ScoringError(f"shard {shard.number}: expected {shard.rows} rows, "
                               f"got {shard.scored} scored and {shard.failed} failed")  # fmt: skip


def _summary(run: JobRun, shards: list[Shard], sha256: str) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "rows_in": sum(shard.rows for shard in shards),
        "scored": sum(shard.scored for shard in shards),
        "failed": sum(shard.failed for shard in shards),
        "size": _size(run.workspace.assembled),
        "sha256": sha256,
        "model": run.output.model,
        "task": run.output.task.name,
        "job": run.identity,
    }
    failures = run.checkpoint.failures()
    if sum(one.rows for one in failures.values()) == summary["failed"]:
        summary |= {"failures": report_failures(failures)}
    if run.output.task.name == "perplexity":
        summary |= {"corpus": _corpus_report(run)}
    return summary


def _corpus_report(run: JobRun) -> dict[str, Any]:
    corpus, count = Tally(), 0
    for _, tally in run.checkpoint.sequences():
        corpus, count = corpus + tally, count + 1
    base = run.output.task.log_base
    return {**corpus.report(base), "log_base": "e" if base is None else base, "sequences": count}


def _write_side_files(run: JobRun, summary: dict[str, Any]) -> None:
    """Writes the summary, and the records that have no place in the output itself."""
    output = run.output
    if output.task.name == "perplexity":
        _write(sequences_path(output.path), _sequence_lines(run))
    errors_path(output.path).unlink(missing_ok=True)
    if output.has_error_file and summary["failed"]:
        _write(
            errors_path(output.path), (record.encode() for record in run.checkpoint.error_records())
        )
    _write(summary_path(output.path), [json.dumps(summary, indent=1).encode() + b"\n"])


def _sequence_lines(run: JobRun) -> Iterator[bytes]:
    for name, tally in run.checkpoint.sequences():
        record = {"sequence": name, **tally.report(run.output.task.log_base)}
        yield orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def _write(path: Path, lines: Iterable[bytes]) -> None:
    temp_path = path.with_name(path.name + ".tmp")
    with temp_path.open("wb") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())
    rename_durably(temp_path, path)
