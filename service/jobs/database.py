"""Files and batches in SQLite: write-ahead, synced at every commit, shared by all processes."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .schemas import ENDED

_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE,
    purpose TEXT, filename TEXT, bytes INTEGER, created_at INTEGER, path TEXT);
CREATE TABLE IF NOT EXISTS batches (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE,
    status TEXT, begun INTEGER DEFAULT 0, finished INTEGER DEFAULT 0, owed INTEGER DEFAULT 0,
    deadline INTEGER, ended_at INTEGER, input_file TEXT, key TEXT UNIQUE, body TEXT, spec BLOB,
    ending BLOB, object BLOB);
CREATE INDEX IF NOT EXISTS batches_by_status ON batches (status);
"""
ACTIVE = f"status NOT IN {ENDED}"  # SQL writes several strings as Python does

_PATIENCE = 30.0  # seconds for another process to end its transaction

Connection = sqlite3.Connection


class Database:
    """One connection, used by one thread at a time; closed once."""

    def __init__(self, path: Path) -> None:
        self._turn = threading.Lock()
        self._db = sqlite3.connect(
            path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
        )
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error:
            self._db.close()
            raise

    def close(self) -> None:
        with self._turn:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Run the block as one transaction, rolled back on any exception. One writer at a time."""
        with self._turn:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        with self._turn:
            return self._db.execute(query, values).fetchall()
