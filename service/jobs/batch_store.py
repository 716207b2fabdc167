"""Stores batches as rows of the database. The routes, the job thread and its steps call it.

Every change is one transaction, because several processes change batches. Changes that end a job
work on a full disk, too; only a new job and the progress of a job need room. A process changes a
job that it executes only while it holds the job's lease. The states:

validating ─> in_progress ─> finalizing ─> completed
     └──────────────┴─> cancelling ─> cancelled         any of these ─> failed, expired
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from hsoftmax.service.errors import InvalidQuery, KeyReused, TooManyJobs, UnknownBatch

from .database import ACTIVE, Connection, Database
from .errors import Interrupted
from .file_store import StoredFile, expect_file, insert_file, insert_upload
from .schemas import ENDED, BatchError, BatchObject
from .stored_spec import StoredJobSpec

_RETRY_AFTER_S = 60  # jobs take long

BatchUpdate = Callable[[BatchObject], BatchObject]


@dataclass(frozen=True, slots=True)
class Completion:
    """Final status of a job that ends without all of its rows, and the error if it failed."""

    outcome: Literal["failed", "cancelled", "expired"]
    failure: BatchError | None = None


@dataclass(frozen=True)
class StoredJob:
    """A batch together with its stored specification.

    Attributes:
        completion: final status, set as soon as it is decided
        attempts: number of starts since the last finished shard, this start included
        owner: name of the API key that created it
        holder: process that executes it
    """

    batch: BatchObject
    spec: StoredJobSpec
    completion: Completion | None = None
    attempts: int = 1
    owner: str | None = None
    holder: str | None = None

    @property
    def id(self) -> str:
        return self.batch.id


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """Value of the Idempotency-Key header, and the hash of the request body sent with it."""

    value: str
    body_hash: str


def add_batch(
    database: Database, job: StoredJob, key: IdempotencyKey | None, max_jobs: int
) -> BatchObject:
    """Insert the batch and return it. Return the earlier batch if the key was used before.

    Raises:
        KeyReused: the key was used before with another body.
        TooManyJobs: `max_jobs` jobs wait or run already.
        UnknownFile: the input file no longer exists.
        InvalidQuery: an active job writes to the same address in a store.
        StorageFull: the disk has no room for it.
    """
    batch, spec = job.batch, job.spec
    with database.transaction(alone=True) as db:
        if key is not None and (before := _find_by_key(db, key, job.owner)) is not None:
            return before
        _expect_room(db, max_jobs)
        if batch.input_file_id is not None:
            expect_file(db, batch.input_file_id)
        if batch.output_url is not None:
            _expect_no_other_output(db, batch.output_url)
        db.execute(
            "INSERT INTO batches (id, status, deadline, input_file, key, body, spec, object, owner,"
            " output_url) VALUES (:id, :status, :deadline, :file, :key, :body, :spec, :object,"
            " :owner, :output_url)",
            {"id": batch.id, "status": batch.status, "deadline": batch.expires_at,
             "file": batch.input_file_id, "key": key and _stored_key(key, job.owner),
             "body": key and key.body_hash, "spec": spec.encode(),
             "object": batch.model_dump_json(), "owner": job.owner,
             "output_url": batch.output_url},
        )  # fmt: skip
    return batch


def find_batch_by_key(
    database: Database, key: IdempotencyKey, owner: str | None
) -> BatchObject | None:
    """Return the batch that its owner created with this key, or None. Raises KeyReused."""
    with database.transaction() as db:
        return _find_by_key(db, key, owner)


def record_progress(database: Database, job: StoredJob, finished: int) -> None:
    """Reset the number of starts to one if more rows are finished than at any start before."""
    with database.transaction() as db:
        _read_held(db, job)
        db.execute(
            "UPDATE batches SET begun = 1, finished = :finished"
            " WHERE id = :id AND finished < :finished",
            {"finished": finished, "id": job.id},
        )


def update_batch(database: Database, job: StoredJob, update: BatchUpdate) -> BatchObject:
    """Apply `update` to a batch that has not ended, and return the changed batch.

    Raises:
        Interrupted: another process has taken the job.
    """
    with database.transaction() as db:
        changed = update(_read_held(db, job))
        store_batch(db, changed, None)
        return changed


def expect_held(database: Database, job: StoredJob) -> None:
    """Raise Interrupted if another process has taken the job."""
    with database.transaction() as db:
        _read_held(db, job)


def store_input(
    database: Database, job: StoredJob, spec: StoredJobSpec, file: StoredFile, max_bytes: int
) -> StoredJob:
    """Store that the input of the job is in this file now, and return the job with it.

    No file that an active job reads is removed.

    Raises:
        Interrupted: another process has taken the job.
        StorageFull: all files exceed `max_bytes` with this one.
    """
    with database.transaction(alone=True) as db:
        _read_held(db, job)
        insert_upload(db, file, max_bytes)
        db.execute(
            "UPDATE batches SET spec = :spec, input_file = :file WHERE id = :id",
            {"spec": spec.encode(), "file": file.id, "id": job.id},
        )
    return replace(job, spec=spec)


def record_decision(database: Database, job: StoredJob, completion: Completion) -> None:
    """Store the final status of the job, before any of the steps that end it.

    A process that takes the job over then ends it in the same way.
    """
    failure = completion.failure and completion.failure.model_dump()
    decision = json.dumps({"outcome": completion.outcome, "failure": failure})

    def record(db: Connection) -> None:
        _read_held(db, job)
        db.execute(
            "UPDATE batches SET ending = :ending WHERE id = :id", {"ending": decision, "id": job.id}
        )

    database.change_with_reserve(record)


def finish(
    database: Database,
    job: StoredJob,
    update: BatchUpdate,
    files: list[StoredFile],
    *,
    now: int,
    outputs_pending: bool,
) -> BatchObject:
    """Apply `update`, the final change of a batch, and insert its files, in one transaction.

    `outputs_pending` marks a batch whose output files could not be written yet. No process
    executes the job after that.

    Raises:
        UnknownBatch: the batch was deleted meanwhile.
        Interrupted: another process has taken the job.
    """

    def change(db: Connection) -> BatchObject:
        changed = update(_read_held(db, job))
        for file in files:
            insert_file(db, file)
        store_batch(db, changed, now)
        db.execute(
            "UPDATE batches SET owed = :owed, lease_holder = NULL, lease_until = NULL"
            " WHERE id = :id",
            {"owed": int(outputs_pending), "id": job.id},
        )
        return changed

    return database.change_with_reserve(change)


def _expect_room(db: Connection, max_jobs: int) -> None:
    (active,) = db.execute(f"SELECT count(*) FROM batches WHERE {ACTIVE}").fetchone()
    if active >= max_jobs:
        raise TooManyJobs(f"jobs: expected at most {max_jobs} that wait or run", _RETRY_AFTER_S)


def _expect_no_other_output(db: Connection, url: str) -> None:
    query = f"SELECT 1 FROM batches WHERE output_url = :url AND {ACTIVE}"
    if db.execute(query, {"url": url}).fetchone():
        raise InvalidQuery(
            f"output_url: expected an address of this job alone, got {url}, to which another "
            "active job writes"
        )


def _read_held(db: Connection, job: StoredJob) -> BatchObject:
    """Read and lock a batch that this process executes.

    Raises:
        UnknownBatch: it was deleted, which no job meets before it has ended.
        Interrupted: another process has taken the job, or has ended it.
    """
    row = db.execute(
        "SELECT object, lease_holder FROM batches WHERE id = :id FOR UPDATE", {"id": job.id}
    ).fetchone()
    if row is None:
        raise unknown_batch(job.id)
    if row[1] != job.holder:
        raise Interrupted("lost")
    return batch_of(row[0])


def store_batch(db: Connection, batch: BatchObject, now: int | None) -> None:
    """Store a changed batch; `now` is when it ended, if it has."""
    ended_at = now if batch.status in ENDED else None
    db.execute(
        "UPDATE batches SET status = :status, ended_at = :ended_at, object = :object"
        " WHERE id = :id",
        {
            "status": batch.status,
            "ended_at": ended_at,
            "object": batch.model_dump_json(),
            "id": batch.id,
        },
    )


def _find_by_key(db: Connection, key: IdempotencyKey, owner: str | None) -> BatchObject | None:
    row = db.execute(
        "SELECT object, body FROM batches WHERE key = :key OR (key = :plain_key AND owner IS NULL)",
        {"key": _stored_key(key, owner), "plain_key": key.value},
    ).fetchone()
    if row is None:
        return None
    if row[1] != key.body_hash:
        raise KeyReused("idempotency-key: expected the body that it came with before, got another")
    return batch_of(row[0])


def _stored_key(key: IdempotencyKey, owner: str | None) -> str:
    """Return the key as the table has it: owners may choose equal keys. A value has no newline."""
    return key.value if owner is None else f"{owner}\n{key.value}"


def batch_of(stored: Any) -> BatchObject:  # noqa: ANN401  column value
    """Return the batch of a column `object`."""
    return BatchObject.model_validate_json(stored)


def unknown_batch(id: str) -> UnknownBatch:
    return UnknownBatch(f"batch {id[:60]!r}: expected one that is here, got none of that id")
