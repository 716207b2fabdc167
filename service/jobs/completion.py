"""How a job ends: what is finished becomes files, and in the same transaction the job has ended.

Where the disk has no room for the outputs the job ends all the same; its shards are kept, and given
out as soon as there is room.
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
    sequences_path,
)

from .batch_store import Change, Completion, Job, decide, end
from .file_store import StoredFile
from .job_context import JobContext
from .schemas import BatchError, BatchErrors, BatchObject, RequestCounts
from .state_dir import StateDir
from .stored_spec import delivery_of

Outcome = Literal["completed", "failed", "cancelled", "expired"]

# What a summary says that belongs to the core's own going on, and not to a client.
_INNER = frozenset({"job", "model", "task", "size", "sha256"})


def complete(job: Job, shop: JobContext, summary: dict[str, Any]) -> None:
    """Let the job have ended with all of its rows."""
    _publish(job, shop, _how("completed", None, summary), summary, owed=False)


def end_early(job: Job, shop: JobContext, ending: Completion) -> None:
    """Let the job have ended with what is finished. It may be called again if it stopped in here.

    What was decided comes first: once its shards are given out, a job can no longer go on.
    """
    if job.ending is None:
        decide(shop.database, job.id, ending)
    summary, owed = None, False
    try:
        summary = _concluded(job, shop.place)
    except (ScoringError, OSError) as error:
        shop.log.error("job_output_delayed", batch=job.id, reason=str(error))
        owed = True
    _publish(job, shop, _how(ending.outcome, ending.failure, summary), summary, owed)


def give_what_is_owed(job: Job, shop: JobContext) -> None:
    """Try once more to give out what a job had finished."""
    with suppress(ScoringError, OSError):
        summary = _concluded(job, shop.place)
        _publish(job, shop, _counted(summary), summary, owed=False)


def _concluded(job: Job, place: StateDir) -> dict[str, Any] | None:
    """The summary of what is finished; None if nothing is."""
    output = place.output(job.id, job.spec.output)
    while True:
        with suppress(CorruptShard):  # each time there is one shard less
            return (
                finalize_partial(delivery_of(job.spec, output)) if output.parent.exists() else None
            )


def _publish(
    job: Job, shop: JobContext, how: Change, summary: dict[str, Any] | None, owed: bool
) -> None:
    now = int(time.time())
    files = {} if summary is None else _files(job, shop.place, now)
    named = {field: file.id for field, file in files.items()}
    end(
        shop.database,
        job.id,
        lambda batch: how(batch).model_copy(update=named),
        list(files.values()),
        now=now,
        owed=owed,
    )
    if not owed:
        _tidy(job, shop.place)


def _how(outcome: Outcome, failure: BatchError | None, summary: dict[str, Any] | None) -> Change:
    def ended(batch: BatchObject) -> BatchObject:
        changed: dict[str, Any] = {"status": outcome, f"{outcome}_at": int(time.time())}
        if failure is not None:
            changed["errors"] = BatchErrors(data=[failure])
        return _counted(summary)(batch).model_copy(update=changed)

    return ended


def _counted(summary: dict[str, Any] | None) -> Change:
    """The batch with the counts of what was given out."""

    def counted(batch: BatchObject) -> BatchObject:
        said = summary or {"rows_in": 0, "scored": 0, "failed": 0}
        total = max(batch.request_counts.total, said["rows_in"])
        counts = RequestCounts(total=total, completed=said["scored"], failed=said["failed"])
        percent = 100.0 if said["rows_in"] == total else round(100 * said["rows_in"] / total, 1)
        shown = None if summary is None else {k: v for k, v in said.items() if k not in _INNER}
        told = {"request_counts": counts, "progress": percent, "summary": shown}
        return batch.model_copy(update=told)

    return counted


def _files(job: Job, place: StateDir, now: int) -> dict[str, StoredFile]:
    """The files that are there, by the batch's fields for them."""
    output = place.output(job.id, job.spec.output)
    paths = {
        "output_file_id": (output, f"{job.id}_output{output.suffix}"),
        "error_file_id": (errors_path(output), f"{job.id}_errors.ndjson"),
        "sequences_file_id": (sequences_path(output), f"{job.id}_sequences.ndjson"),
    }
    return {
        field: _file(f"file-{job.id.removeprefix('batch_')}{field[0]}", path, name, place, now)
        for field, (path, name) in paths.items()
        if path.exists()
    }


def _file(id: str, path: Path, name: str, place: StateDir, now: int) -> StoredFile:
    relative = str(path.relative_to(place.folder))
    return StoredFile(id, "batch_output", name, path.stat().st_size, now, relative)


def _tidy(job: Job, place: StateDir) -> None:
    """What nobody needs any more; what is left of it goes with the job."""
    output = place.output(job.id, job.spec.output)
    with suppress(OSError, sqlite3.Error):
        shutil.rmtree(output.with_name(output.name + ".parts"), ignore_errors=True)
        for path in place.of_job(job.id).glob("survey.*"):
            path.unlink(missing_ok=True)
