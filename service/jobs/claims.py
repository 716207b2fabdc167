"""Claims jobs for the process that executes them, for the time of a lease. The job thread calls it.

Several processes may look for jobs in one database; a job has one holder at a time.
"""

import json
from typing import Any

from .batch_store import Completion, StoredJob, batch_of
from .database import ACTIVE, Connection, Database
from .schemas import BatchError
from .stored_spec import decode_spec


def claim_next_job(database: Database, holder: str, lease: float) -> StoredJob | None:
    """Return the oldest job that no process executes, now executed by `holder`. None if none is.

    One more start of the job is counted. A process passes over jobs that another one claims at
    this moment. `lease` is in seconds.
    """
    query = _claim_query(database, ACTIVE)
    if not database.rows(query.replace(" FOR UPDATE SKIP LOCKED", ""), holder=holder):
        return None

    def claim(db: Connection) -> StoredJob | None:
        row = db.execute(query, {"holder": holder}).fetchone()
        if row is None:
            return None
        job = _stored_job(row, holder)
        db.execute(
            f"UPDATE batches SET begun = :begun, {_lease_of(database)} WHERE id = :id",
            {"begun": job.attempts, "holder": holder, "lease": lease, "id": job.id},
        )
        return job

    return database.change_with_reserve(claim)


def claim_pending_outputs(database: Database, holder: str, lease: float) -> list[StoredJob]:
    """Return the jobs that have ended without their output files, now executed by `holder`."""
    query = _claim_query(database, "owed <> 0").replace(" LIMIT 1", "")
    if not database.rows(query.replace(" FOR UPDATE SKIP LOCKED", ""), holder=holder):
        return []

    def claim(db: Connection) -> list[StoredJob]:
        rows = db.execute(query, {"holder": holder}).fetchall()
        jobs = [_stored_job(row, holder) for row in rows]
        for job in jobs:
            db.execute(
                f"UPDATE batches SET {_lease_of(database)} WHERE id = :id",
                {"holder": holder, "lease": lease, "id": job.id},
            )
        return jobs

    return database.change_with_reserve(claim)


def _claim_query(database: Database, condition: str) -> str:
    """Return the query for jobs that meet the condition and that no other process executes.

    A file of SQLite has one process that executes jobs, so that every lease in it has ended.
    """
    free = ":holder = :holder"
    if database.shared:
        free = (
            "(lease_until IS NULL OR lease_holder = CAST(:holder AS TEXT)"
            f" OR lease_until <= {database.now})"
        )
    return (
        "SELECT object, spec, ending, begun + 1, owner FROM batches"
        f" WHERE {condition} AND {free} ORDER BY number LIMIT 1 FOR UPDATE SKIP LOCKED"
    )


def _lease_of(database: Database) -> str:
    return (
        f"lease_holder = :holder, lease_until = {database.now} + CAST(:lease AS DOUBLE PRECISION)"
    )


def renew_lease(database: Database, job: StoredJob, lease: float) -> bool:
    """Hold the job for `lease` more seconds. False if another process has taken it, or it ended."""
    with database.transaction() as db:
        renewed = db.execute(
            f"UPDATE batches SET {_lease_of(database)}"
            " WHERE id = :id AND lease_holder = CAST(:holder AS TEXT)",
            {"holder": job.holder, "lease": lease, "id": job.id},
        )
        return renewed.rowcount == 1


def release_job(database: Database, job: StoredJob, pause: float = 0.0) -> None:
    """Undo the count of the current start, and let another process take the job after a pause."""

    def release(db: Connection) -> None:
        db.execute(
            "UPDATE batches SET begun = CASE WHEN begun > 1 THEN begun - 1 ELSE 1 END,"
            f" lease_holder = NULL, lease_until = {database.now} + CAST(:pause AS DOUBLE PRECISION)"
            " WHERE id = :id AND lease_holder = :holder",
            {"id": job.id, "holder": job.holder, "pause": pause},
        )

    database.change_with_reserve(release)


def _stored_job(row: Any, holder: str) -> StoredJob:  # noqa: ANN401  row of `_claim_query`
    batch, spec, decision, attempts, owner = row
    completion = _decode_completion(decision)
    return StoredJob(batch_of(batch), decode_spec(spec), completion, attempts, owner, holder)


def _decode_completion(stored: Any) -> Completion | None:  # noqa: ANN401  column value
    if stored is None:
        return None
    decision = json.loads(stored)
    failure = decision["failure"] and BatchError.model_validate(decision["failure"])
    return Completion(decision["outcome"], failure)
