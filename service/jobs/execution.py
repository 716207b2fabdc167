"""Executes one job, from where it stopped: find duplicate ids, score shards, write the outputs.

The job thread calls it. The process may end at any step: the result of a step is either complete,
under its final name, or made again. A process that stops on purpose leaves the job as it is.
"""

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hsoftmax.scoring import (
    CorruptShard,
    DuplicateIds,
    JobSpec,
    RowReader,
    begun_identity,
    find_duplicate_ids,
    fingerprint,
    read_duplicate_ids,
    run_job,
    run_job_by,
)
from hsoftmax.scoring.errors import WorkspaceBusy
from hsoftmax.service.errors import JobsUnavailable, NotFound, ServiceError
from hsoftmax.service.repository.loaded_bundle import LoadedBundle

from .batch_store import Completion, StoredJob, expect_held, update_batch
from .blocking_graph_runner import BlockingGraphRunner
from .cancellation import CancellationCheck
from .claims import release_job
from .completion import complete_job, finish_early
from .errors import Interrupted, JobFailure, failure_of
from .input_download import fetch_input
from .input_files import client_message, input_files
from .job_context import JobContext
from .lease import holding
from .output_upload import upload_output
from .progress import ProgressReporter
from .request_lines import LineContext, part_scorer
from .schemas import BatchError, BatchObject
from .stored_spec import bundle_info_of, job_spec_of, open_source

_NUM_THREADS = 2  # one parses or writes a block while the other waits for the engine
_MAX_CORRUPT_SHARD_ATTEMPTS = 3  # runs, each of which may find one corrupt shard
_MAX_ATTEMPTS = 10  # starts of a job without one more finished shard
_BUSY_PAUSE_S = 2.0  # until a job is tried again whose files another process still locks


def execute_job(job: StoredJob, context: JobContext) -> None:
    """Execute the rest of the job, end it, and log its status. Called by the job thread.

    The job stays as it is if this process is stopping, or if another process has taken the job.
    """
    try:
        with holding(context.database, job, context.settings.job_lease) as lease:
            _execute_held(job, context if lease is None else replace(context, lost=lease.is_lost))
    except Interrupted:  # the other process ends the job
        context.log.warning("job_taken_over", batch=job.id)
    except WorkspaceBusy:  # the process that lost the job has not noticed it yet
        context.log.warning("job_still_held", batch=job.id)
        release_job(context.database, job, _BUSY_PAUSE_S)


def _execute_held(job: StoredJob, context: JobContext) -> None:
    completion = job.completion or _too_many_attempts(job)
    if completion is None:
        job, completion = _execute(job, context)
    if completion is not None:
        finish_early(job, context, completion)
        code = completion.failure and completion.failure.code
        context.log.info("job_ended", batch=job.id, status=completion.outcome, code=code)


def _too_many_attempts(job: StoredJob) -> Completion | None:
    """Fail a job after 10 starts that ended without one more shard, e.g. because memory ran out."""
    if job.attempts <= _MAX_ATTEMPTS:
        return None
    message = (
        f"job: expected it to get on, got {_MAX_ATTEMPTS} processes that ended without a shard more"
    )
    return Completion("failed", BatchError(code="gave_up", message=message))


def _execute(job: StoredJob, context: JobContext) -> tuple[StoredJob, Completion | None]:
    """Score the job and complete it. Return how it ends if it cannot be completed.

    Returns:
        The job as it is stored now, with an input that was downloaded; and None if it is complete,
        or if this process is stopping and another one resumes it.
    """
    try:
        check = CancellationCheck(job, context)
        check()
        loaded = _find_bundle(job, context)
        job = fetch_input(job, context, loaded, check)
        summary = _score(job, context, loaded, check)
        upload_output(job, context, check)
    except Interrupted as interruption:
        if interruption.reason == "lost":
            raise
        if interruption.reason != "stopping":
            return job, Completion(interruption.reason)
        release_job(context.database, job)
        return job, None
    except (sqlite3.Error, JobsUnavailable, WorkspaceBusy):
        raise  # the end cannot be stored: the job thread tries again
    except Exception as raised:
        if context.stopping():  # the error is a consequence of the shutdown
            return job, None
        expect_held(context.database, job)  # or of another process at the same files
        failure = failure_of(raised)
        if failure is None:
            context.log.error("job_failed", exc_info=raised, batch=job.id)
            failure = JobFailure("internal", "the service failed; its log has the job's id")
        error = BatchError(code=failure.code, message=str(failure), param=failure.param)
        return job, Completion("failed", error)
    complete_job(job, context, summary)  # if its end cannot be stored, the job thread tries again
    context.log.info("job_ended", batch=job.id, status="completed")
    return job, None


def _score(
    job: StoredJob, context: JobContext, loaded: LoadedBundle, check: CancellationCheck
) -> dict[str, Any]:
    files = _unchanged_inputs(job, context)
    try:
        return _score_rows(job, context, loaded, files, check)
    except (Interrupted, JobFailure, WorkspaceBusy):
        raise
    except Exception as error:
        if (failure := failure_of(error)) is None:
            raise
        message = client_message(
            failure, job.spec, files, context.state_dir, context.settings.input_root
        )
        raise JobFailure(failure.code, message) from error


def _score_rows(
    job: StoredJob,
    context: JobContext,
    loaded: LoadedBundle,
    files: tuple[Path, ...],
    check: CancellationCheck,
) -> dict[str, Any]:
    bundle_info, spec = bundle_info_of(loaded), job.spec
    output = context.state_dir.output(job.id, spec.output)
    output.parent.mkdir(exist_ok=True)
    source, columns = open_source(spec, files, bundle_info)
    with closing(source):
        duplicate_ids = _duplicate_ids(job, context, source, check)
        job_spec = job_spec_of(spec, output, source, columns, bundle_info, duplicate_ids.duplicates)
        job_spec = _as_begun(job, context, job_spec)
        _mark_started(job, context, duplicate_ids)
        graph_runner = BlockingGraphRunner(loaded, context.engine, context.loop, check)
        run = partial(run_job, job_spec, graph_runner)
        if spec.requests:
            line_context = LineContext(
                job.id, job.batch.endpoint, loaded, context.settings, graph_runner
            )
            run = partial(run_job_by, job_spec, part_scorer(spec.requests, line_context))
        return _run_with_retries(run, ProgressReporter(job, context, duplicate_ids.rows, check))


def _as_begun(job: StoredJob, context: JobContext, job_spec: JobSpec) -> JobSpec:
    """Return the specification with which a job goes on that began with or without native kernels.

    A service that restarts with another choice finishes its jobs all the same. The log says that
    the last digits of such an output may differ.
    """
    begun = begun_identity(job_spec.output)
    if begun is None or begun.get("native", job_spec.native) == job_spec.native:
        return job_spec
    context.log.warning("job_kernels_changed", batch=job.id, native=job_spec.native)
    return replace(job_spec, native=begun["native"])


def _run_with_retries(
    run: Callable[..., dict[str, Any]], progress: ProgressReporter
) -> dict[str, Any]:
    for _ in range(_MAX_CORRUPT_SHARD_ATTEMPTS):
        with suppress(CorruptShard):
            return run(
                resume=True,
                threads=_NUM_THREADS,
                progress=progress,
                on_all_scored=progress.on_all_scored,
            )
    raise JobFailure("storage_failed", "disk: expected what was written to it, got something else")


def _find_bundle(job: StoredJob, context: JobContext) -> LoadedBundle:
    """Return the bundle with the job's digest, under any version. Raises JobFailure if none is."""
    for loaded in context.repository:
        if loaded.name == job.spec.model and loaded.manifest.digest == job.spec.digest:
            return loaded
    raise JobFailure(
        "bundle_gone",
        f"{job.spec.model}: expected the bundle that the job was made for, version "
        f"{job.spec.version}, digest {job.spec.digest[:12]}, got none that is served",
        "endpoint",
    )


def _unchanged_inputs(job: StoredJob, context: JobContext) -> tuple[Path, ...]:
    """Return the input files. Raises JobFailure if they are gone or changed since submission."""
    param = "input_file_id" if job.spec.path is None else "input_path"
    try:
        files = input_files(job.spec, context.state_dir, context.settings.input_root)
        same = fingerprint(files) == job.spec.fingerprint
    except (ServiceError, OSError) as error:
        gone = isinstance(error, (NotFound, FileNotFoundError))
        message = str(error) if isinstance(error, ServiceError) else "input: it cannot be read"
        raise JobFailure("input_gone" if gone else "input_unreadable", message, param) from None
    if not same:
        raise JobFailure(
            "input_changed", "input: expected it as it was when the job was made, got a change",
            param,
        )  # fmt: skip
    return files


def _duplicate_ids(
    job: StoredJob, context: JobContext, source: RowReader, check: CancellationCheck
) -> DuplicateIds:
    path = context.state_dir.duplicate_ids(job.id)
    return read_duplicate_ids(path) if path.exists() else find_duplicate_ids(source, path, check)


def _mark_started(job: StoredJob, context: JobContext, duplicate_ids: DuplicateIds) -> None:
    def started(batch: BatchObject) -> BatchObject:
        counts = batch.request_counts.model_copy(update={"total": duplicate_ids.rows})
        changed: dict[str, Any] = {"request_counts": counts}
        if batch.status == "validating":
            changed |= {"status": "in_progress", "in_progress_at": int(time.time())}
        return batch.model_copy(update=changed)

    update_batch(context.database, job, started)
