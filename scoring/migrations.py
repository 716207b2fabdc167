"""Opens an SQLite database, and brings a database of an older schema up to date.

The checkpoints of a scoring job and the service's database of jobs use it. A table of one row,
`schema_version`, holds the number, as a table is the same in every SQL database. A database from
before there were numbers has no such table: it gets migration 1, which changes nothing in it.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from .errors import NewerSchema

# Migration n, counted from 1, is the SQL statements that make schema n of schema n - 1. Those that
# a release contains never change: a new schema is one more migration. Migration 1 makes tables
# only where they do not exist yet.
Migrations = Sequence[Sequence[str]]

_TIMEOUT_S = 30.0  # for another process to end its transaction
_RETRY_INTERVAL_S = 0.01


class SqlRows(Protocol):
    """The result of a statement."""

    def fetchone(self) -> Any: ...  # noqa: ANN401  a row or None


class SqlConnection(Protocol):
    """A connection to a database of any kind, inside a transaction."""

    def execute(self, statement: str, /) -> SqlRows: ...


# Opens a transaction that no other process changes the schema beside.
Transaction = Callable[[], AbstractContextManager[SqlConnection]]


def open_database(
    path: Path, migrations: Migrations, name: str, *, exclusive: bool = False
) -> sqlite3.Connection:
    """A connection in autocommit mode, write-ahead and synced at every commit.

    Any thread may use it, one at a time. `name` stands for the database in error messages.
    `exclusive` keeps all other connections out until this one is closed. SQLite then shares no
    memory with other processes, so that the file may lie on a disk that several machines mount.

    Raises:
        sqlite3.Error: the file is no database, or cannot be written.
        NewerSchema: the database has more migrations than these.
    """
    db = sqlite3.connect(path, timeout=_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        if exclusive:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
        _write_ahead(db)
        db.execute("PRAGMA synchronous = FULL")
        migrate(lambda: _transaction(db), migrations, name)
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


def migrate(transaction: Transaction, migrations: Migrations, name: str) -> None:
    """Apply the migrations that the database `name` lacks, each in one transaction.

    Several processes may do this at once: each transaction holds a lock while it reads the
    version, so that every migration is applied once.

    Raises:
        NewerSchema: the database has more migrations than these.
    """
    complete = False
    while not complete:
        with transaction() as db:
            complete = _apply_next(db, migrations, name)


def _apply_next(db: SqlConnection, migrations: Migrations, name: str) -> bool:
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
    db.execute(f"UPDATE schema_version SET version = {version + 1}")
    return False


def _version(db: SqlConnection) -> int:
    """The database's version, 0 where it has none yet."""
    db.execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)")
    found = db.execute("SELECT version FROM schema_version").fetchone()
    if found is None:
        db.execute("INSERT INTO schema_version VALUES (0)")
        return 0
    return int(found[0])


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # SQLite itself rolls back after some errors
            db.execute("ROLLBACK")
        raise
