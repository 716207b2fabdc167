"""Removes expired files and jobs, and files on the disk that have no row. The job thread calls it.

Rows are deleted before their files. A process that ends between the two leaves files without rows,
which the next sweep removes.
"""

import shutil
import time
from contextlib import suppress
from pathlib import Path

from .database import ACTIVE, Connection, Database
from .state_dir import StateDir

_UPLOAD_GRACE_S = 3600.0  # age below which a file without a row may be an upload in progress


def sweep(database: Database, state_dir: StateDir, retention: float) -> None:
    """Remove jobs and files older than `retention` seconds, and files and folders without a row.

    A file goes sooner if its client asked for that.
    """
    now = time.time()
    for expired in _delete_expired_rows(database, int(now - retention), int(now)):
        (state_dir.folder / expired).unlink(missing_ok=True)
    _remove_unknown_jobs(database, state_dir)
    found = (*_entries(state_dir.files), *_entries(state_dir.uploads))
    known = {path for (path,) in database.rows("SELECT path FROM files")}
    for path in found:
        if str(path.relative_to(state_dir.folder)) not in known and _age(path) > _UPLOAD_GRACE_S:
            path.unlink(missing_ok=True)


def _delete_expired_rows(database: Database, cutoff: int, now: int) -> list[str]:
    """Delete the rows older than the cutoff, and files that expired. Return the files' paths."""
    used = f"SELECT input_file FROM batches WHERE {ACTIVE} AND input_file IS NOT NULL"
    old = f"(created_at <= :cutoff OR expires_at <= :now) AND id NOT IN ({used})"
    if not database.rows(
        f"SELECT 1 FROM files WHERE {old}"
        " UNION ALL SELECT 1 FROM batches WHERE ended_at <= :cutoff",
        cutoff=cutoff,
        now=now,
    ):
        return []

    def delete(db: Connection) -> list[str]:
        ages = {"cutoff": cutoff, "now": now}
        rows = db.execute(f"SELECT path FROM files WHERE {old}", ages).fetchall()
        db.execute(f"DELETE FROM files WHERE {old}", ages)
        db.execute("DELETE FROM batches WHERE ended_at <= :cutoff", {"cutoff": cutoff})
        return [path for (path,) in rows]

    return database.change_with_reserve(delete, alone=True)


def _remove_unknown_jobs(database: Database, state_dir: StateDir) -> None:
    """Remove the folders of deleted jobs, unless a file in them still has a row.

    The folders are listed before the rows are read: another replica may create a job meanwhile.
    """
    folders = _entries(state_dir.jobs)
    known = {id for (id,) in database.rows("SELECT id FROM batches")}
    files = {Path(path).parts[1] for (path,) in database.rows("SELECT path FROM files")}
    for folder in folders:
        if folder.name not in known | files:
            shutil.rmtree(folder, ignore_errors=True)


def _entries(folder: Path) -> list[Path]:
    with suppress(OSError):
        return list(folder.iterdir())
    return []


def _age(path: Path) -> float:
    with suppress(OSError):
        return time.time() - path.stat().st_mtime
    return 0.0
