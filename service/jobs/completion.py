"""Ends jobs: publishes the finished rows as files and sets the final status in one transaction.

If the disk has no room for the output files, the job ends without them. Its shards are kept, and
the output files are written as soon as there is room.
"""

import shutil
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from hsoftmax.scoring import (
    CorruptShard,
    ScoringError,
    errors_path,
    finalize_partial,
    remove_temp_files,
    sequences_path,
    total_failure,
)
from hsoftmax.scoring.errors import WorkspaceBusy
from hsoftmax.service.errors import UnknownBatch

from .batch_store import (
    BatchUpdate,
    Completion,
    StoredJob,
    expect_held,
    finish,
    record_decision,
)
from .errors import Interrupted
from .file_store import StoredFile
from .job_context import JobContext
from .schemas import BatchError, BatchErrors, BatchObject, RequestCounts
from .state_dir import StateDir
from .stored_spec import output_spec_of

FinalStatus = Literal["completed", "failed", "cancelled", "expired"]

# Fields of a summary that only the scoring code uses. Clients do not see them.
_INTERNAL_FIELDS = frozenset({"job", "model", "task", "size", "sha256"})


def complete_job(job: StoredJob, context: JobContext, summary: dict[str, Any]) -> None:
    """End a job whose rows are all scored."""
    update = _final_update("completed", _total_failure(summary), summary)
    _publish(job, context, update, summary, outputs_pending=False)


def _total_failure(summary: dict[str, Any]) -> BatchError | None:
    """Return the commonest reason if every row failed. The job is complete all the same."""
    message = total_failure(summary)
    return None if message is None else BatchError(code="all_rows_failed", message=message)


def finish_early(job: StoredJob, context: JobContext, completion: Completion) -> None:
    """End a job with the rows that are finished. Safe to call again after a crash inside it.

    The decision is stored first: a job whose shards have become output files cannot be resumed.
    Temporary files are removed even before, because the end of a job on a full disk needs their
    room.
    """
    expect_held(context.database, job)
    remove_temp_files(context.state_dir.output(job.id, job.spec.output))
    if job.completion is None:
        record_decision(context.database, job, completion)
    summary, outputs_pending = None, False
    try:
        summary = _finalize_outputs(job, context.state_dir)
    except WorkspaceBusy:
        raise
    except (ScoringError, OSError) as error:
        context.log.error("job_output_delayed", batch=job.id, reason=str(error))
        remove_temp_files(context.state_dir.output(job.id, job.spec.output))
        outputs_pending = True
    _publish(
        job,
        context,
        _final_update(completion.outcome, completion.failure, summary),
        summary,
        outputs_pending,
    )


def publish_pending_outputs(job: StoredJob, context: JobContext) -> None:
    """Try again to publish the output files of a job that has ended."""
    try:
        summary = _finalize_outputs(job, context.state_dir)
    except WorkspaceBusy:
        return
    except (ScoringError, OSError):
        remove_temp_files(context.state_dir.output(job.id, job.spec.output))
        return
    with suppress(UnknownBatch, Interrupted):  # a client has deleted it, or it was taken over
        _publish(job, context, _counts_update(summary), summary, outputs_pending=False)


def _finalize_outputs(job: StoredJob, state_dir: StateDir) -> dict[str, Any] | None:
    """Write the output files from the finished shards and return their summary.

    Returns None if the job has no folder: it ended before its first step.
    """
    output = state_dir.output(job.id, job.spec.output)
    while True:
        with suppress(CorruptShard):  # each attempt drops the corrupt shard
            return (
                finalize_partial(output_spec_of(job.spec, output))
                if output.parent.exists()
                else None
            )


def _publish(
    job: StoredJob,
    context: JobContext,
    update: BatchUpdate,
    summary: dict[str, Any] | None,
    outputs_pending: bool,
) -> None:
    now = int(time.time())
    files = {} if summary is None else _output_files(job, context.state_dir, now)
    file_ids = {field: file.id for field, file in files.items()}
    finish(
        context.database,
        job,
        lambda batch: update(batch).model_copy(update=file_ids),
        list(files.values()),
        now=now,
        outputs_pending=outputs_pending,
    )
    if not outputs_pending:
        _remove_work_files(job, context.state_dir)


def _final_update(
    outcome: FinalStatus, failure: BatchError | None, summary: dict[str, Any] | None
) -> BatchUpdate:
    def with_final_status(batch: BatchObject) -> BatchObject:
        changed: dict[str, Any] = {"status": outcome, f"{outcome}_at": int(time.time())}
        if failure is not None:
            changed["errors"] = BatchErrors(data=[failure])
        return _counts_update(summary)(batch).model_copy(update=changed)

    return with_final_status


def _counts_update(summary: dict[str, Any] | None) -> BatchUpdate:
    """Return an update that sets the row counts, the progress and the summary of a batch."""

    def with_counts(batch: BatchObject) -> BatchObject:
        totals = summary or {"rows_in": 0, "scored": 0, "failed": 0}
        total = max(batch.request_counts.total, totals["rows_in"])
        counts = RequestCounts(total=total, completed=totals["scored"], failed=totals["failed"])
        percent = 100.0 if totals["rows_in"] == total else round(100 * totals["rows_in"] / total, 1)
        public_summary = (
            None
            if summary is None
            else {k: v for k, v in totals.items() if k not in _INTERNAL_FIELDS}
        )
        changes = {"request_counts": counts, "progress": percent, "summary": public_summary}
        return batch.model_copy(update=changes)

    return with_counts


def _output_files(job: StoredJob, state_dir: StateDir, now: int) -> dict[str, StoredFile]:
    """Return the output files that exist, by the name of the batch field with their id."""
    output = state_dir.output(job.id, job.spec.output)
    paths = {
        "output_file_id": (output, f"{job.id}_output{output.suffix}"),
        "error_file_id": (errors_path(output), f"{job.id}_errors.ndjson"),
        "sequences_file_id": (sequences_path(output), f"{job.id}_sequences.ndjson"),
    }
    kept_for = job.spec.output_expires_after
    expires_at = None if kept_for is None else now + kept_for
    return {
        field: _stored_file(
            f"file-{job.id.removeprefix('batch_')}{field[0]}",
            path,
            name,
            state_dir,
            now,
            expires_at,
            job.owner,
        )
        for field, (path, name) in paths.items()
        if path.exists()
    }


def _stored_file(
    id: str,
    path: Path,
    name: str,
    state_dir: StateDir,
    now: int,
    expires_at: int | None,
    owner: str | None,
) -> StoredFile:
    relative, size = str(path.relative_to(state_dir.folder)), path.stat().st_size
    return StoredFile(id, "batch_output", name, size, now, relative, expires_at, owner)


def _remove_work_files(job: StoredJob, state_dir: StateDir) -> None:
    """Remove the shards and the duplicate ids. Retention removes anything that is left here."""
    output = state_dir.output(job.id, job.spec.output)
    with suppress(OSError, sqlite3.Error):
        shutil.rmtree(output.with_name(output.name + ".parts"), ignore_errors=True)
        for path in state_dir.job_dir(job.id).glob("survey.*"):
            path.unlink(missing_ok=True)
