"""Writes the output of a job to its address in a store, before the job is completed.

The job thread calls it. An object that is there is never replaced. If it has the content of the
output, an earlier process wrote it and ended before it could record that.
"""

from collections.abc import Callable
from pathlib import Path

from hsoftmax.stores.errors import ObjectExists, StoreError, StoreUnavailable
from hsoftmax.stores.url import StoreUrl, parse_url

from .batch_store import StoredJob, expect_held
from .errors import JobFailure
from .job_context import JobContext
from .store_retries import with_retries

_PARAM = "output_url"


def upload_output(job: StoredJob, context: JobContext, check: Callable[[], None]) -> None:
    """Write the output file, if the job names an address for it.

    Raises:
        JobFailure: another object is there, or the store does not take it.
        Interrupted: the job must stop.
    """
    if job.spec.output_url is None:
        return
    url = parse_url(job.spec.output_url)
    path = context.state_dir.output(job.id, job.spec.output)
    expect_held(context.database, job)
    try:
        with_retries(lambda: _create(url, path), check, context.log, job.id)
    except StoreError as error:
        context.log.warning("job_store_failed", batch=job.id, reason=str(error))
        raise _failure_of(error) from None


def _create(url: StoreUrl, path: Path) -> None:
    from hsoftmax.stores.new_object import create_object

    create_object(url, path)


def _failure_of(error: StoreError) -> JobFailure:
    rest = "output_file_id has the output"
    match error:
        case ObjectExists():
            return JobFailure(
                "output_exists",
                f"output_url: expected no object there, got another one, which stays: {rest}",
                _PARAM,
            )
        case StoreUnavailable():
            return JobFailure(
                "store_unavailable",
                f"output_url: expected the store to answer in five minutes, got nothing: {rest}",
                _PARAM,
            )
        case _:
            return JobFailure(
                "output_refused",
                f"output_url: expected the store to take the output, got a refusal: {rest}",
                _PARAM,
            )
