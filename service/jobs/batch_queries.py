"""Reads batches for clients, with what their API key may see, and counts them for the metrics."""

from hsoftmax.service.errors import InvalidQuery

from .batch_store import batch_of, unknown_batch
from .database import Database
from .ownership import VISIBLE
from .schemas import BatchObject


def find_batch(database: Database, id: str, owner: str | None = None) -> BatchObject:
    """Return the batch with this id. Raises UnknownBatch."""
    rows = database.rows(
        f"SELECT object FROM batches WHERE id = :id AND {VISIBLE}", id=id, owner=owner
    )
    if not rows:
        raise unknown_batch(id)
    return batch_of(rows[0][0])


def list_batches(
    database: Database, limit: int, after: str | None, owner: str | None = None
) -> tuple[list[BatchObject], bool]:
    """Return (batches, has_more): at most `limit` batches older than `after`, newest first."""
    start = None
    if after is not None:
        start_rows = database.rows(
            f"SELECT number FROM batches WHERE id = :id AND {VISIBLE}", id=after, owner=owner
        )
        if not start_rows:
            raise InvalidQuery(f"after: expected the id of a batch, got {after[:60]!r}")
        start = start_rows[0][0]
    older = "" if start is None else " AND number < :start"
    rows = database.rows(
        f"SELECT object FROM batches WHERE {VISIBLE}{older} ORDER BY number DESC LIMIT :limit",
        owner=owner,
        limit=limit + 1,
        **({} if start is None else {"start": start}),
    )
    return [batch_of(row[0]) for row in rows[:limit]], len(rows) > limit


def count_by_status(database: Database) -> dict[str, int]:
    return dict(database.rows("SELECT status, count(*) FROM batches GROUP BY status"))
