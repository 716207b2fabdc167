"""Opens an SQLite database, and brings one of an older schema up to date.

The checkpoints of a scoring job and the service's database of jobs use it. A table of one row,
`schema_version`, holds the number, as a table is the same in every SQL database. A database from
before there were numbers has no such table: it gets migration 1, which changes nothing in it.
"""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .errors import NewerSchema

# Migration n, counted from 1, is the SQL statements that make schema n of schema n - 1. Those that
# a release contains never change: a new schema is one more migration. Migration 1 makes tables
# only where they do not exist yet.
Migrations = Sequence[Sequence[str]]

_TIMEOUT_S = 30.0  # for another process to end its transaction
_RETRY_INTERVAL_S = 0.01


def open_database(path: Path, migrations: Migrations, name: str) -> sqlite3.Connection:
    """A connection in autocommit mode, write-ahead and synced at every commit.

    Any thread may use it, one at a time. `name` stands for the database in error messages.

    Raises:
        sqlite3.Error: the file is no database, or cannot be written.
        NewerSchema: the database has more migrations than these.
    """
    db = sqlite3.connect(path, timeout=_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        _write_ahead(db)
        db.execute("PRAGMA synchronous = FULL")
        migrate(db, migrations, name)
    except BaseException:
        db.close()
        raise
    return db


def _write_ahead(db: sqlite3.Connection) -> None:
    """Set the journal's mode, again if it is locked: SQLite itself does not wait for that lock.

    A new database is locked for an instant by each process that opens it.
    """
    give_up = time.monotonic() + _TIMEOUT_S
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY  # without its extension
            if not busy or time.monotonic() > give_up:
                raise
        time.sleep(_RETRY_INTERVAL_S)


def migrate(db: sqlite3.Connection, migrations: Migrations, name: str) -> None:
    """Apply the migrations that the database `name` lacks, each in one transaction.

    The connection is in autocommit mode. Several processes may do this at once: each transaction
    holds the write lock while it reads the version, so that every migration is applied once.

    Raises:
        NewerSchema: the database has more migrations than these.
    """
    complete = False
    while not complete:
        with _transaction(db):
            complete = _apply_next(db, migrations, name)


def _apply_next(db: sqlite3.Connection, migrations: Migrations, name: str) -> bool:
    """Apply one migration; true if none was left to apply."""
    version = _version(db)
    if version > len(migrations):
        raise NewerSchema(
            f"{name}: expected schema version <= {len(migrations)}, got {version}: "
            "a newer hsoftmax wrote this"
        )
    if version == len(migrations):
        return True
    for statement in migrations[version]:
        db.execute(statement)
    db.execute("UPDATE schema_version SET version = ?", [version + 1])
    return False


def _version(db: sqlite3.Connection) -> int:
    """The database's version, 0 where it has none yet."""
    db.execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)")
    found = db.execute("SELECT version FROM schema_version").fetchone()
    if found is None:
        db.execute("INSERT INTO schema_version VALUES (0)")
        return 0
    return int(found[0])


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # SQLite itself rolls back after some errors
            db.execute("ROLLBACK")
        raise
