"""Batches as rows, and every change to one as a transaction: several processes make them.

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

_RETRY_AFTER_S = 60  # seconds: jobs take long

BatchUpdate = Callable[[BatchObject], BatchObject]


@dataclass(frozen=True, slots=True)
class Completion:
    """How a job that will not be completed ends, and why if it failed."""

    outcome: Literal["failed", "cancelled", "expired"]
    failure: BatchError | None = None


@dataclass(frozen=True)
class StoredJob:
    """A batch with what it was told.

    Attributes:
        ending: once it has been decided
        tries: how often it was begun since it last got on, this time included
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
    """An idempotency key, and the hash of the body that it came with."""

    key: str
    body_hash: str


def add_batch(
    database: Database, job: StoredJob, key: IdempotencyKey | None, max_jobs: int
) -> BatchObject:
    """The batch; or the one that the key made before.

    Raises:
        KeyReused: the key came with another body.
        TooManyJobs: as many wait as may.
        UnknownFile: the input is gone.
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
             key and key.key, key and key.body_hash, spec.encode(), batch.model_dump_json()],
        )  # fmt: skip
    return batch


def find_batch_by_key(database: Database, key: IdempotencyKey) -> BatchObject | None:
    """The batch that the key made, if any. Raises KeyReused."""
    with database.transaction() as db:
        return _find_by_key(db, key)


def find_batch(database: Database, id: str) -> BatchObject:
    """Raises UnknownBatch."""
    found = database.rows("SELECT object FROM batches WHERE id = ?", id)
    if not found:
        raise _unknown_batch(id)
    return _batch(found[0][0])


def list_batches(
    database: Database, limit: int, after: str | None
) -> tuple[list[BatchObject], bool]:
    """At most `limit`, the newest first, of those before `after`; and whether there are more."""
    start = None
    if after is not None:
        start_rows = database.rows("SELECT number FROM batches WHERE id = ?", after)
        if not start_rows:
            raise InvalidQuery(f"after: expected the id of a batch, got {after[:60]!r}")
        start = start_rows[0][0]
    found = database.rows(
        "SELECT object FROM batches WHERE ? IS NULL OR number < ? ORDER BY number DESC LIMIT ?",
        start,
        start,
        limit + 1,
    )
    return [_batch(row[0]) for row in found[:limit]], len(found) > limit


def cancel(database: Database, id: str, now: int) -> BatchObject:
    """A job that waits is cancelled, one that runs will be. Raises UnknownBatch, BatchEnded."""
    with database.transaction() as db:
        found = db.execute("SELECT object, begun FROM batches WHERE id = ?", [id]).fetchone()
        if found is None:
            raise _unknown_batch(id)
        batch, begun = _batch(found[0]), found[1]
        if batch.status in ("cancelling", "cancelled"):
            return batch
        if batch.status in ENDED:
            raise BatchEnded(f"batch {id}: expected one that waits or runs, got one {batch.status}")
        if begun:
            changed = batch.model_copy(update={"status": "cancelling", "cancelling_at": now})
        else:
            times = {"cancelling_at": now, "cancelled_at": now}
            changed = batch.model_copy(update={"status": "cancelled", **times})
        _store(db, changed, now)
        return changed


def expire_waiting(database: Database, now: int) -> None:
    """Those whose time is over before they have begun."""
    condition = f"{ACTIVE} AND NOT begun AND deadline <= ?"
    if not database.rows(f"SELECT 1 FROM batches WHERE {condition}", now):
        return
    with database.transaction() as db:
        for (row,) in db.execute(f"SELECT object FROM batches WHERE {condition}", [now]).fetchall():
            expired = {"status": "expired", "expired_at": now}
            _store(db, _batch(row).model_copy(update=expired), now)


def claim_next_job(database: Database) -> StoredJob | None:
    """The oldest that has not ended, which has begun from now on."""
    query = (
        "SELECT object, spec, ending, begun + 1 FROM batches "
        f"WHERE {ACTIVE} ORDER BY number LIMIT 1"
    )
    if not database.rows(query):
        return None
    with database.transaction() as db:
        found = db.execute(query).fetchone()
        if found is None:
            return None
        job = StoredJob(
            _batch(found[0]), decode_spec(found[1]), _decode_completion(found[2]), found[3]
        )
        db.execute("UPDATE batches SET begun = ? WHERE id = ?", [job.attempts, job.id])
        return job


def record_progress(database: Database, id: str, finished: int) -> None:
    """So many rows were finished when it was begun: if they are more now, it is no longer stuck."""
    with database.transaction() as db:
        db.execute(
            "UPDATE batches SET begun = 1, finished = ? WHERE id = ? AND finished < ?",
            [finished, id, finished],
        )


def release_job(database: Database, id: str) -> None:
    """It was stopped on purpose, which does not count as a try."""
    with database.transaction() as db:
        db.execute("UPDATE batches SET begun = max(1, begun - 1) WHERE id = ?", [id])


def is_cancelled(database: Database, id: str) -> bool:
    return database.rows("SELECT status FROM batches WHERE id = ?", id) == [("cancelling",)]


def update_batch(database: Database, id: str, update: BatchUpdate) -> BatchObject:
    """Change a job that has not ended; what it is now."""
    with database.transaction() as db:
        changed = update(_read(db, id))
        _store(db, changed, None)
        return changed


def record_decision(database: Database, id: str, completion: Completion) -> None:
    """Let it be known how the job ends, before anything is done that only an end does."""
    failure = completion.failure and completion.failure.model_dump()
    with database.transaction() as db:
        decision = json.dumps({"outcome": completion.outcome, "failure": failure})
        db.execute("UPDATE batches SET ending = ? WHERE id = ?", [decision, id])


def finish(
    database: Database,
    id: str,
    update: BatchUpdate,
    files: list[StoredFile],
    *,
    now: int,
    outputs_pending: bool,
) -> BatchObject:
    """Let a job have ended, with its files; `owed` if some are yet to come."""
    with database.transaction() as db:
        changed = update(_read(db, id))
        for file in files:
            insert_file(db, file)
        _store(db, changed, now)
        db.execute("UPDATE batches SET owed = ? WHERE id = ?", [int(outputs_pending), id])
        return changed


def pending_outputs(database: Database) -> list[StoredJob]:
    """Jobs that ended with shards which could not be given out."""
    found = database.rows("SELECT object, spec FROM batches WHERE owed")
    return [StoredJob(_batch(batch), decode_spec(spec)) for batch, spec in found]


def count_by_status(database: Database) -> dict[str, int]:
    return dict(database.rows("SELECT status, count(*) FROM batches GROUP BY status"))


def _expect_room(db: Connection, max_jobs: int) -> None:
    (active,) = db.execute(f"SELECT count(*) FROM batches WHERE {ACTIVE}").fetchone()
    if active >= max_jobs:
        raise TooManyJobs(f"jobs: expected at most {max_jobs} that wait or run", _RETRY_AFTER_S)


def _read(db: Connection, id: str) -> BatchObject:
    """A batch that is there for as long as its job is worked at."""
    (row,) = db.execute("SELECT object FROM batches WHERE id = ?", [id]).fetchone()
    return _batch(row)


def _store(db: Connection, batch: BatchObject, now: int | None) -> None:
    ended_at = now if batch.status in ENDED else None
    db.execute(
        "UPDATE batches SET status = ?, ended_at = ?, object = ? WHERE id = ?",
        [batch.status, ended_at, batch.model_dump_json(), batch.id],
    )


def _find_by_key(db: Connection, key: IdempotencyKey) -> BatchObject | None:
    found = db.execute("SELECT object, body FROM batches WHERE key = ?", [key.key]).fetchone()
    if found is None:
        return None
    if found[1] != key.body_hash:
        raise KeyReused("idempotency-key: expected the body that it came with before, got another")
    return _batch(found[0])


def _batch(stored: Any) -> BatchObject:  # noqa: ANN401  a column
    return BatchObject.model_validate_json(stored)


def _decode_completion(stored: Any) -> Completion | None:  # noqa: ANN401  a column
    if stored is None:
        return None
    decision = json.loads(stored)
    failure = decision["failure"] and BatchError.model_validate(decision["failure"])
    return Completion(decision["outcome"], failure)


def _unknown_batch(id: str) -> UnknownBatch:
    return UnknownBatch(f"batch {id[:60]!r}: expected one that is here, got none of that id")
