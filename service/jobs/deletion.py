"""Deletes files and jobs that clients no longer want, on a full disk too. The routes call it.

A row is deleted before its files. A process that ends between the two leaves files without a row,
which `retention.sweep` removes. If the disk has no room to record this, the files are deleted
first, which makes room. A row without a file is answered like a file that does not exist.
"""

import shutil

from hsoftmax.service.errors import BatchActive, FileInUse, StorageFull

from .batch_store import unknown_batch
from .database import ACTIVE, Connection, Database
from .file_store import unknown_file, unlink
from .ownership import VISIBLE
from .schemas import ENDED
from .state_dir import StateDir


def delete_file(database: Database, state_dir: StateDir, id: str, owner: str | None = None) -> None:
    """Delete a file and its row. Raises UnknownFile, or FileInUse if an active job reads it."""

    def delete(db: Connection) -> str:
        path = _path_of_unused(db, id, owner)
        db.execute("DELETE FROM files WHERE id = :id", {"id": id})
        return path

    try:
        path = database.change_with_reserve(delete, alone=True)
    except StorageFull:
        with database.transaction(alone=True) as db:  # no job can begin to read it meanwhile
            unlink(state_dir, _path_of_unused(db, id, owner))
        path = database.change_with_reserve(delete, alone=True)
    unlink(state_dir, path)


def delete_batch(
    database: Database, state_dir: StateDir, id: str, owner: str | None = None
) -> None:
    """Delete an ended job with its output files. Raises UnknownBatch, BatchActive."""

    def delete(db: Connection) -> None:
        _expect_ended(db, id, owner)
        folder = f"{state_dir.relative_job_dir(id)}/"
        db.execute(
            "DELETE FROM files WHERE substr(path, 1, :length) = :folder",
            {"length": len(folder), "folder": folder},
        )
        db.execute("DELETE FROM batches WHERE id = :id", {"id": id})

    try:
        database.change_with_reserve(delete)
    except StorageFull:
        shutil.rmtree(state_dir.job_dir(id), ignore_errors=True)
        database.change_with_reserve(delete)
    shutil.rmtree(state_dir.job_dir(id), ignore_errors=True)


def _path_of_unused(db: Connection, id: str, owner: str | None) -> str:
    """Return the path of a file that no active job reads. Raises UnknownFile, FileInUse."""
    row = db.execute(
        f"SELECT path FROM files WHERE id = :id AND {VISIBLE}", {"id": id, "owner": owner}
    ).fetchone()
    if row is None:
        raise unknown_file(id)
    reader = db.execute(
        f"SELECT id FROM batches WHERE input_file = :id AND {ACTIVE}", {"id": id}
    ).fetchone()
    if reader is not None:
        raise FileInUse(f"file {id}: expected no job that reads it, got {reader[0]}")
    return str(row[0])


def _expect_ended(db: Connection, id: str, owner: str | None) -> None:
    row = db.execute(
        f"SELECT status FROM batches WHERE id = :id AND {VISIBLE} FOR UPDATE",
        {"id": id, "owner": owner},
    ).fetchone()
    if row is None:
        raise unknown_batch(id)
    if row[0] not in ENDED:
        raise BatchActive(f"batch {id}: expected one that has ended, got one {row[0]}: cancel it")
