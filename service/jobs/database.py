"""SQLite database of files and batches, shared by all processes of the service.

It keeps a write-ahead log and syncs every commit to the disk. The first process that opens a
database of an older schema migrates it. The stores of files and batches call it.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hsoftmax.scoring.migrations import Migrations, open_database

from .schemas import ENDED

MIGRATIONS: Migrations = [
    [
        "CREATE TABLE IF NOT EXISTS files (number INTEGER PRIMARY KEY AUTOINCREMENT,"
        " id TEXT UNIQUE, purpose TEXT, filename TEXT, bytes INTEGER, created_at INTEGER,"
        " path TEXT)",
        "CREATE TABLE IF NOT EXISTS batches (number INTEGER PRIMARY KEY AUTOINCREMENT,"
        " id TEXT UNIQUE, status TEXT, begun INTEGER DEFAULT 0, finished INTEGER DEFAULT 0,"
        " owed INTEGER DEFAULT 0, deadline INTEGER, ended_at INTEGER, input_file TEXT,"
        " key TEXT UNIQUE, body TEXT, spec BLOB, ending BLOB, object BLOB)",
        "CREATE INDEX IF NOT EXISTS batches_by_status ON batches (status)",
    ],
    ["ALTER TABLE files ADD COLUMN expires_at INTEGER"],
]
ACTIVE = f"status NOT IN {ENDED}"  # the text of a tuple of strings is the same in SQL

Connection = sqlite3.Connection


class Database:
    """One connection, which several threads use in turn. The owner closes it once.

    Raises:
        sqlite3.Error: the file is not a database, or is not writable.
        NewerSchema: a newer version of hsoftmax wrote it.
    """

    def __init__(self, path: Path, migrations: Migrations = MIGRATIONS) -> None:
        self._lock = threading.Lock()
        self._db = open_database(path, migrations, path.name)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Run the block as one transaction, rolled back on any exception. One writer at a time."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        with self._lock:
            return self._db.execute(query, values).fetchall()
