"""Files and batches in SQLite: write-ahead, synced at every commit, shared by all processes.

A database of an older schema is brought up to date by the first process that opens it.
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
]
ACTIVE = f"status NOT IN {ENDED}"  # SQL writes several strings as Python does

Connection = sqlite3.Connection


class Database:
    """One connection, used by one thread at a time; closed once.

    Raises:
        sqlite3.Error: the file is no database, or cannot be written.
        NewerSchema: a newer version of hsoftmax wrote it.
    """

    def __init__(self, path: Path, migrations: Migrations = MIGRATIONS) -> None:
        self._turn = threading.Lock()
        self._db = open_database(path, migrations, path.name)

    def close(self) -> None:
        with self._turn:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """All of what is done in it, or nothing; nobody else writes meanwhile."""
        with self._turn:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """What the query finds, at once."""
        with self._turn:
            return self._db.execute(query, values).fetchall()
