"""Cancels batches for clients, and ends waiting batches after their deadline.

The routes and the job thread call it.
"""

from hsoftmax.service.errors import BatchEnded

from .batch_store import batch_of, store_batch, unknown_batch
from .database import ACTIVE, Connection, Database
from .ownership import VISIBLE
from .schemas import ENDED, BatchObject


def cancel(database: Database, id: str, now: int, owner: str | None = None) -> BatchObject:
    """Cancel a waiting job at once, or ask a running job to stop. Raises UnknownBatch, BatchEnded.

    A job that is cancelled already is returned as it is.
    """

    def change(db: Connection) -> BatchObject:
        row = db.execute(
            f"SELECT object, begun FROM batches WHERE id = :id AND {VISIBLE} FOR UPDATE",
            {"id": id, "owner": owner},
        ).fetchone()
        if row is None:
            raise unknown_batch(id)
        batch, attempts = batch_of(row[0]), row[1]
        if batch.status in ("cancelling", "cancelled"):
            return batch
        if batch.status in ENDED:
            raise BatchEnded(f"batch {id}: expected one that waits or runs, got one {batch.status}")
        if attempts:
            changed = batch.model_copy(update={"status": "cancelling", "cancelling_at": now})
        else:
            times = {"cancelling_at": now, "cancelled_at": now}
            changed = batch.model_copy(update={"status": "cancelled", **times})
        store_batch(db, changed, now)
        return changed

    return database.change_with_reserve(change)


def expire_waiting(database: Database, now: int) -> None:
    """Set the status `expired` on jobs that have not started before their deadline."""
    condition = f"{ACTIVE} AND begun = 0 AND deadline <= :now"
    if not database.rows(f"SELECT 1 FROM batches WHERE {condition}", now=now):
        return

    def expire(db: Connection) -> None:
        query = f"SELECT object FROM batches WHERE {condition} FOR UPDATE SKIP LOCKED"
        for (row,) in db.execute(query, {"now": now}).fetchall():
            expired = {"status": "expired", "expired_at": now}
            store_batch(db, batch_of(row).model_copy(update=expired), now)

    database.change_with_reserve(expire)


def is_cancelled(database: Database, id: str) -> bool:
    """True if a client asked to cancel the job."""
    return database.rows("SELECT status FROM batches WHERE id = :id", id=id) == [("cancelling",)]
