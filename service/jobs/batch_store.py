"""Stores batches as rows of the database. The routes, the job thread and its steps call it.

Every change is one transaction, because several processes change batches. Changes that end a job
work on a full disk, too; only a new job and the progress of a job need room. The states:

validating ─> in_progress ─> finalizing ─> completed
     └──────────────┴─> cancelling ─> cancelled         any of these ─> failed, expired
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from hsoftmax.service.errors import BatchEnded, InvalidQuery, KeyReused, TooManyJobs, UnknownBatch

from .database import ACTIVE, Connection, Database
from .file_store import StoredFile, expect_file, insert_file
from .schemas import ENDED, BatchError, BatchObject
from .stored_spec import StoredJobSpec, decode_spec

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
    """

    batch: BatchObject
    spec: StoredJobSpec
    completion: Completion | None = None
    attempts: int = 1

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
        StorageFull: the disk has no room for it.
    """
    batch, spec = job.batch, job.spec
    with database.transaction() as db:
        if key is not None and (before := _find_by_key(db, key)) is not None:
            return before
        _expect_room(db, max_jobs)
        if batch.input_file_id is not None:
            expect_file(db, batch.input_file_id)
        db.execute(
            "INSERT INTO batches (id, status, deadline, input_file, key, body, spec, object)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [batch.id, batch.status, batch.expires_at, batch.input_file_id,
             key and key.value, key and key.body_hash, spec.encode(), batch.model_dump_json()],
        )  # fmt: skip
    return batch


def find_batch_by_key(database: Database, key: IdempotencyKey) -> BatchObject | None:
    """Return the batch that was created with this key, or None. Raises KeyReused."""
    with database.transaction() as db:
        return _find_by_key(db, key)


def find_batch(database: Database, id: str) -> BatchObject:
    """Return the batch with this id. Raises UnknownBatch."""
    rows = database.rows("SELECT object FROM batches WHERE id = ?", id)
    if not rows:
        raise unknown_batch(id)
    return _batch(rows[0][0])


def list_batches(
    database: Database, limit: int, after: str | None
) -> tuple[list[BatchObject], bool]:
    """Return (batches, has_more): at most `limit` batches older than `after`, newest first."""
    start = None
    if after is not None:
        start_rows = database.rows("SELECT number FROM batches WHERE id = ?", after)
        if not start_rows:
            raise InvalidQuery(f"after: expected the id of a batch, got {after[:60]!r}")
        start = start_rows[0][0]
    rows = database.rows(
        "SELECT object FROM batches WHERE ? IS NULL OR number < ? ORDER BY number DESC LIMIT ?",
        start,
        start,
        limit + 1,
    )
    return [_batch(row[0]) for row in rows[:limit]], len(rows) > limit


def cancel(database: Database, id: str, now: int) -> BatchObject:
    """Cancel a waiting job at once, or ask a running job to stop. Raises UnknownBatch, BatchEnded.

    A job that is cancelled already is returned as it is.
    """

    def change(db: Connection) -> BatchObject:
        row = db.execute("SELECT object, begun FROM batches WHERE id = ?", [id]).fetchone()
        if row is None:
            raise unknown_batch(id)
        batch, attempts = _batch(row[0]), row[1]
        if batch.status in ("cancelling", "cancelled"):
            return batch
        if batch.status in ENDED:
            raise BatchEnded(f"batch {id}: expected one that waits or runs, got one {batch.status}")
        if attempts:
            changed = batch.model_copy(update={"status": "cancelling", "cancelling_at": now})
        else:
            times = {"cancelling_at": now, "cancelled_at": now}
            changed = batch.model_copy(update={"status": "cancelled", **times})
        _store(db, changed, now)
        return changed

    return database.change_with_reserve(change)


def expire_waiting(database: Database, now: int) -> None:
    """Set the status `expired` on jobs that have not started before their deadline."""
    condition = f"{ACTIVE} AND NOT begun AND deadline <= ?"
    if not database.rows(f"SELECT 1 FROM batches WHERE {condition}", now):
        return

    def expire(db: Connection) -> None:
        for (row,) in db.execute(f"SELECT object FROM batches WHERE {condition}", [now]).fetchall():
            expired = {"status": "expired", "expired_at": now}
            _store(db, _batch(row).model_copy(update=expired), now)

    database.change_with_reserve(expire)


def claim_next_job(database: Database) -> StoredJob | None:
    """Return the oldest job that has not ended and count one more start of it. None if none is."""
    query = (
        "SELECT object, spec, ending, begun + 1 FROM batches "
        f"WHERE {ACTIVE} ORDER BY number LIMIT 1"
    )
    if not database.rows(query):
        return None

    def claim(db: Connection) -> StoredJob | None:
        row = db.execute(query).fetchone()
        if row is None:
            return None
        batch, spec, decision, attempts = row
        job = StoredJob(_batch(batch), decode_spec(spec), _decode_completion(decision), attempts)
        db.execute("UPDATE batches SET begun = ? WHERE id = ?", [job.attempts, job.id])
        return job

    return database.change_with_reserve(claim)


def record_progress(database: Database, id: str, finished: int) -> None:
    """Reset the number of starts to one if more rows are finished than at any start before."""
    with database.transaction() as db:
        db.execute(
            "UPDATE batches SET begun = 1, finished = ? WHERE id = ? AND finished < ?",
            [finished, id, finished],
        )


def release_job(database: Database, id: str) -> None:
    """Undo the count of the current start: this process stopped the job on purpose."""
    release = "UPDATE batches SET begun = max(1, begun - 1) WHERE id = ?"
    database.change_with_reserve(lambda db: db.execute(release, [id]))


def is_cancelled(database: Database, id: str) -> bool:
    """True if a client asked to cancel the job."""
    return database.rows("SELECT status FROM batches WHERE id = ?", id) == [("cancelling",)]


def update_batch(database: Database, id: str, update: BatchUpdate) -> BatchObject:
    """Apply `update` to a batch that has not ended, and return the changed batch."""
    with database.transaction() as db:
        changed = update(_read(db, id))
        _store(db, changed, None)
        return changed


def record_decision(database: Database, id: str, completion: Completion) -> None:
    """Store the final status of the job, before any of the steps that end it.

    A process that takes the job over then ends it in the same way.
    """
    failure = completion.failure and completion.failure.model_dump()
    decision = json.dumps({"outcome": completion.outcome, "failure": failure})
    record = "UPDATE batches SET ending = ? WHERE id = ?"
    database.change_with_reserve(lambda db: db.execute(record, [decision, id]))


def finish(
    database: Database,
    id: str,
    update: BatchUpdate,
    files: list[StoredFile],
    *,
    now: int,
    outputs_pending: bool,
) -> BatchObject:
    """Apply `update`, the final change of a batch, and insert its files, in one transaction.

    `outputs_pending` marks a batch whose output files could not be written yet.

    Raises:
        UnknownBatch: the batch was deleted meanwhile.
    """

    def change(db: Connection) -> BatchObject:
        changed = update(_read(db, id))
        for file in files:
            insert_file(db, file)
        _store(db, changed, now)
        db.execute("UPDATE batches SET owed = ? WHERE id = ?", [int(outputs_pending), id])
        return changed

    return database.change_with_reserve(change)


def pending_outputs(database: Database) -> list[StoredJob]:
    """Return the jobs that have ended but whose output files could not be written."""
    rows = database.rows("SELECT object, spec FROM batches WHERE owed")
    return [StoredJob(_batch(batch), decode_spec(spec)) for batch, spec in rows]


def count_by_status(database: Database) -> dict[str, int]:
    return dict(database.rows("SELECT status, count(*) FROM batches GROUP BY status"))


def _expect_room(db: Connection, max_jobs: int) -> None:
    (active,) = db.execute(f"SELECT count(*) FROM batches WHERE {ACTIVE}").fetchone()
    if active >= max_jobs:
        raise TooManyJobs(f"jobs: expected at most {max_jobs} that wait or run", _RETRY_AFTER_S)


def _read(db: Connection, id: str) -> BatchObject:
    """Read a batch. Raises UnknownBatch, which no job meets before it has ended."""
    row = db.execute("SELECT object FROM batches WHERE id = ?", [id]).fetchone()
    if row is None:
        raise unknown_batch(id)
    return _batch(row[0])


def _store(db: Connection, batch: BatchObject, now: int | None) -> None:
    ended_at = now if batch.status in ENDED else None
    db.execute(
        "UPDATE batches SET status = ?, ended_at = ?, object = ? WHERE id = ?",
        [batch.status, ended_at, batch.model_dump_json(), batch.id],
    )


def _find_by_key(db: Connection, key: IdempotencyKey) -> BatchObject | None:
    row = db.execute("SELECT object, body FROM batches WHERE key = ?", [key.value]).fetchone()
    if row is None:
        return None
    if row[1] != key.body_hash:
        raise KeyReused("idempotency-key: expected the body that it came with before, got another")
    return _batch(row[0])


def _batch(stored: Any) -> BatchObject:  # noqa: ANN401  column value
    return BatchObject.model_validate_json(stored)


def _decode_completion(stored: Any) -> Completion | None:  # noqa: ANN401  column value
    if stored is None:
        return None
    decision = json.loads(stored)
    failure = decision["failure"] and BatchError.model_validate(decision["failure"])
    return Completion(decision["outcome"], failure)


def unknown_batch(id: str) -> UnknownBatch:
    return UnknownBatch(f"batch {id[:60]!r}: expected one that is here, got none of that id")
