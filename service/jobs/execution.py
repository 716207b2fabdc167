"""Carrying out one job, from wherever it stopped: survey, shards, outputs.

Each step may be the last: what a step leaves is either whole, under its own name and known to the
next one, or made again. An interruption by the end of the process changes nothing at all.
"""

import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from hsoftmax.scoring import (
    CorruptShard,
    DuplicateIds,
    JobSpec,
    RowReader,
    find_duplicate_ids,
    fingerprint,
    read_duplicate_ids,
    run_job,
)
from hsoftmax.service.errors import NotFound, ServiceError
from hsoftmax.service.repository.loaded_bundle import LoadedBundle

from .batch_store import Completion, Job, change, put_back
from .blocking_graph_runner import EngineRun
from .cancellation import CancellationCheck
from .completion import complete, end_early
from .errors import Failure, Interrupted, failure_of
from .input_files import input_files, told
from .job_context import JobContext
from .progress import Progress
from .schemas import BatchError, BatchObject
from .stored_spec import facts_of, open_source, order_of

_AT_ONCE = 2  # blocks: one is parsed or written while another is in the engine
_TRIES = 3  # at what the disk spoilt
_MOST_TRIES = 10  # at a job that does not get on


def carry_out(job: Job, shop: JobContext) -> None:
    """Do what is left of the job, and say how it ended; nothing if this process is ending."""
    ending = job.ending or _given_up(job) or _carried_out(job, shop)
    if ending is not None:
        end_early(job, shop, ending)
        code = ending.failure and ending.failure.code
        shop.log.info("job_ended", batch=job.id, status=ending.outcome, code=code)


def _given_up(job: Job) -> Completion | None:
    """A job at which one process after another dies must not take the next one along, too."""
    if job.tries <= _MOST_TRIES:
        return None
    said = (
        f"job: expected it to get on, got {_MOST_TRIES} processes that ended without a shard more"
    )
    return Completion("failed", BatchError(code="gave_up", message=said))


def _carried_out(job: Job, shop: JobContext) -> Completion | None:
    """None if it is completed, or will be by whoever takes it up."""
    try:
        complete(job, shop, _done(job, shop))
        shop.log.info("job_ended", batch=job.id, status="completed")
        return None
    except Interrupted as stop:
        if stop.reason != "stopping":
            return Completion(stop.reason)
        put_back(shop.database, job.id)
        return None
    except sqlite3.Error:
        raise  # what cannot be said cannot be ended: it is taken up again
    except Exception as raised:
        if shop.stopping():  # which is why
            return None
        failure = failure_of(raised)
        if failure is None:
            shop.log.error("job_failed", exc_info=raised, batch=job.id)
            failure = Failure("internal", "the service failed; its log has the job's id")
        error = BatchError(code=failure.code, message=str(failure), param=failure.param)
        return Completion("failed", error)


def _done(job: Job, shop: JobContext) -> dict[str, Any]:
    watch = CancellationCheck(job, shop)
    watch()
    served = _pinned(job, shop)
    files = _files(job, shop)
    try:
        return _scored(job, shop, served, files, watch)
    except (Interrupted, Failure):
        raise
    except Exception as error:
        if (failure := failure_of(error)) is None:
            raise
        said = told(failure, job.spec, files, shop.place, shop.settings.input_root)
        raise Failure(failure.code, said) from error


def _scored(
    job: Job,
    shop: JobContext,
    served: LoadedBundle,
    files: tuple[Path, ...],
    watch: CancellationCheck,
) -> dict[str, Any]:
    bundle_info, spec = facts_of(served), job.spec
    output = shop.place.output(job.id, spec.output)
    output.parent.mkdir(exist_ok=True)
    source, columns = open_source(spec, files, bundle_info)
    with closing(source):
        seen = _surveyed(job, shop, source, watch)
        order = order_of(spec, output, source, columns, bundle_info, seen.duplicates)
        _begin(job, shop, seen)
        run = EngineRun(served, shop.engine, shop.loop, watch)
        return _run(order, run, Progress(job, shop, seen.rows, watch))


def _run(order: JobSpec, run: EngineRun, progress: Progress) -> dict[str, Any]:
    for _ in range(_TRIES):
        with suppress(CorruptShard):
            return run_job(
                order,
                run,
                resume=True,
                threads=_AT_ONCE,
                progress=progress,
                on_all_scored=progress.finishing,
            )
    raise Failure("storage_failed", "disk: expected what was written to it, got something else")


def _pinned(job: Job, shop: JobContext) -> LoadedBundle:
    """The bundle that the job began with, under whatever version it is served now."""
    for served in shop.repository:
        if served.name == job.spec.model and served.manifest.digest == job.spec.digest:
            return served
    raise Failure(
        "bundle_gone",
        f"{job.spec.model}: expected the bundle that the job was made for, version "
        f"{job.spec.version}, digest {job.spec.digest[:12]}, got none that is served",
        "endpoint",
    )


def _files(job: Job, shop: JobContext) -> tuple[Path, ...]:
    """The input, as it was when the job was made."""
    param = "input_file_id" if job.spec.path is None else "input_path"
    try:
        files = input_files(job.spec, shop.place, shop.settings.input_root)
        same = fingerprint(files) == job.spec.fingerprint
    except (ServiceError, OSError) as error:
        gone = isinstance(error, (NotFound, FileNotFoundError))
        said = str(error) if isinstance(error, ServiceError) else "input: it cannot be read"
        raise Failure("input_gone" if gone else "input_unreadable", said, param) from None
    if not same:
        raise Failure(
            "input_changed", "input: expected it as it was when the job was made, got a change",
            param,
        )  # fmt: skip
    return files


def _surveyed(
    job: Job, shop: JobContext, source: RowReader, watch: CancellationCheck
) -> DuplicateIds:
    path = shop.place.survey(job.id)
    return read_duplicate_ids(path) if path.exists() else find_duplicate_ids(source, path, watch)


def _begin(job: Job, shop: JobContext, seen: DuplicateIds) -> None:
    def begun(batch: BatchObject) -> BatchObject:
        counts = batch.request_counts.model_copy(update={"total": seen.rows})
        changed: dict[str, Any] = {"request_counts": counts}
        if batch.status == "validating":
            changed |= {"status": "in_progress", "in_progress_at": int(time.time())}
        return batch.model_copy(update=changed)

    change(shop.database, job.id, begun)
