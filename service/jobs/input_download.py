"""Downloads the input of a job from a store into the folder of uploads, where it gets a row.

The job thread calls it before the first step of a job. The copy counts like an upload, and the
sweep removes it after the end of the job, as it expires at once and an active job keeps its file.
"""

import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from hsoftmax.scoring.job.workspace import sync_and_rename
from hsoftmax.service.errors import InvalidQuery, StorageFull, UnsupportedMediaType
from hsoftmax.service.repository.loaded_bundle import LoadedBundle
from hsoftmax.stores.errors import ObjectMissing, StoreError, StoreUnavailable
from hsoftmax.stores.url import parse_url

from .batch_store import StoredJob, store_input
from .errors import JobFailure
from .file_store import StoredFile, unlink
from .input_files import input_files
from .input_object import InputObject
from .input_schema import with_input_schema
from .job_context import JobContext
from .store_retries import with_retries

if TYPE_CHECKING:
    from hsoftmax.stores.objects import StoredObject

_PARAM = "input_url"


def fetch_input(
    job: StoredJob, context: JobContext, loaded: LoadedBundle, check: Callable[[], None]
) -> StoredJob:
    """Return the job with its input on the disk, downloaded if it is in a store and not yet here.

    Raises:
        JobFailure: the object has changed, is gone or cannot be read, or there is no room for it.
        Interrupted: the job must stop.
    """
    source = job.spec.input_object
    if source is None or job.spec.file is not None:
        return job
    file = _new_file(job, source)
    path = context.state_dir.folder / file.path
    temporary = context.state_dir.uploads / file.id
    try:
        with_retries(lambda: _download(source, temporary, check), check, context.log, job.id)
        sync_and_rename(temporary, path)
        return _with_file(job, context, loaded, file)
    except Exception as error:  # the sweep removes a file that never gets its row
        if (failure := _failure_of(error)) is None:
            raise
        unlink(context.state_dir, file.path)
        if isinstance(error, StoreError):
            context.log.warning("job_store_failed", batch=job.id, reason=str(error))
        raise failure from None
    finally:
        temporary.unlink(missing_ok=True)


def _new_file(job: StoredJob, source: InputObject) -> StoredFile:
    id, now = f"file-{secrets.token_hex(12)}", int(time.time())
    name = parse_url(source.url).name
    path = f"files/{id}{PurePosixPath(name).suffix.lower()}"
    return StoredFile(id, "batch", name, source.size, now, path, expires_at=now, owner=job.owner)


def _download(source: InputObject, to: Path, check: Callable[[], None]) -> None:
    """Write the object to a file. It is the one of the submission before and after it is read."""
    from hsoftmax.stores.objects import ObjectStore

    url = parse_url(source.url)
    store = ObjectStore(url.parent)
    _expect_unchanged(store.head(url.name), source)
    try:
        size = _write(store.pieces(url.name, source.size), to, check)
    except StoreError:
        _expect_unchanged(store.head(url.name), source)
        raise
    _expect_unchanged(store.head(url.name), source)
    if size != source.size:
        raise StoreUnavailable(f"{url}: expected {source.size} bytes, got {size}")


def _write(pieces: Iterable[bytes], to: Path, check: Callable[[], None]) -> int:
    """Write the pieces to a file and return the number of their bytes."""
    with to.open("wb") as file:
        for piece in pieces:
            check()
            file.write(piece)
        return file.tell()


def _with_file(
    job: StoredJob, context: JobContext, loaded: LoadedBundle, file: StoredFile
) -> StoredJob:
    spec = replace(job.spec, file=file.path, filename=file.filename)
    root = context.settings.input_root
    files = input_files(spec, context.state_dir, root)
    endpoint = job.batch.endpoint
    spec = with_input_schema(spec, endpoint, loaded, files, context.state_dir, root)
    return store_input(context.database, job, spec, file, context.settings.max_files_bytes)


def _expect_unchanged(found: "StoredObject", source: InputObject) -> None:
    if (found.size, found.tag) != (source.size, source.tag):
        raise _changed()


def _changed() -> JobFailure:
    return JobFailure(
        "input_changed",
        "input_url: expected the object as it was when the job was made, got a change",
        _PARAM,
    )


def _failure_of(error: Exception) -> JobFailure | None:
    """Return the failure of the job that an error of the download means, or None."""
    match error:
        case ObjectMissing():
            return JobFailure(
                "input_gone",
                "input_url: expected the object that was there when the job was made, got none",
                _PARAM,
            )
        case StoreUnavailable():
            return JobFailure(
                "store_unavailable",
                "input_url: expected the store to answer in five minutes, got nothing",
                _PARAM,
            )
        case StoreError():
            return JobFailure(
                "input_unreadable",
                "input_url: expected an object that this service may read, got a refusal of the "
                "store",
                _PARAM,
            )
        case StorageFull():
            return JobFailure("disk_full", str(error), _PARAM)
        case InvalidQuery() | UnsupportedMediaType():
            return JobFailure("invalid_input", str(error), _PARAM)
        case _:
            return None
