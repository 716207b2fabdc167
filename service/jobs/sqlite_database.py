"""The database in a file of the state folder, shared by all processes of one machine.

It keeps a write-ahead log and syncs every commit to the disk. The first process that opens a
database of an older schema migrates it.

On a full disk `transaction` raises StorageFull. `change_with_reserve` is for changes that free room
or record the end of a job: it repeats them in the room of the `reserve` file.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from hsoftmax.scoring.migrations import Migrations, open_database
from hsoftmax.service.errors import StorageFull

from .database import Connection
from .migrations import SQLITE
from .reserve import Reserve, is_disk_full, no_room

T = TypeVar("T")


class SqliteConnection:
    """A connection whose transaction locks the whole database: FOR UPDATE is not needed."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def execute(
        self, statement: str, values: Mapping[str, Any] = MappingProxyType({}), /
    ) -> sqlite3.Cursor:
        plain = statement.replace(" SKIP LOCKED", "").replace(" FOR UPDATE", "")
        return self._db.execute(plain, dict(values))


class SqliteDatabase:
    """One connection, which several threads use in turn. The owner closes it once.

    Raises:
        StorageFull: the disk has no room for it.
        sqlite3.Error: the file is not a database, or is not writable.
        NewerSchema: a newer version of hsoftmax wrote it.
    """

    shared = False  # the file lock of the state folder selects the process that executes jobs
    now = "((julianday('now') - 2440587.5) * 86400)"

    def __init__(self, path: Path, migrations: Migrations = SQLITE) -> None:
        self._lock = threading.Lock()
        self._folder = path.parent
        self._reserve = Reserve(path.with_name("reserve"))
        self._db = self._open(path, migrations)
        self.fill_reserve()

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def fill_reserve(self) -> None:
        """Take the room of the reserve again, if the disk has it."""
        self._reserve.fill()

    @contextmanager
    def transaction(self, *, alone: bool = False) -> Iterator[Connection]:
        """Run the block as one transaction, rolled back on any exception. One writer at a time.

        Raises:
            StorageFull: the disk has no room for the change.
        """
        with self._lock, self._full_is_storage_full():
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield SqliteConnection(self._db)
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # SQLite itself rolls back after some errors
                    self._db.execute("ROLLBACK")
                raise

    def change_with_reserve(self, change: Callable[[Connection], T], *, alone: bool = False) -> T:
        """Run `change` as one transaction; on a full disk, again in room that the state has.

        This is the room of SQLite's log, once its content is in the database, then that of the
        reserve.

        Raises:
            StorageFull: other writers have taken all of it.
        """
        while True:
            with suppress(StorageFull):
                return self._change(change)
            self._restart_log()
            try:
                return self._change(change)
            except StorageFull:
                if not self._reserve.release():
                    raise
            self._restart_log()  # the database grows first, so that its log need not grow again

    def rows(self, query: str, /, **values: object) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        with self._lock:
            return self._db.execute(query, values).fetchall()

    def _change(self, change: Callable[[Connection], T]) -> T:
        with self.transaction() as db:
            return change(db)

    def _restart_log(self) -> None:
        """Move SQLite's log into the database, so that the next transaction writes over it."""
        with suppress(sqlite3.Error), self._lock:
            self._db.execute("PRAGMA wal_checkpoint(RESTART)")

    def _open(self, path: Path, migrations: Migrations) -> sqlite3.Connection:
        """Open the database, on a full disk in the room of the reserve."""
        while True:
            try:
                with self._full_is_storage_full():
                    return open_database(path, migrations, path.name)
            except StorageFull:
                if not self._reserve.release():
                    raise

    @contextmanager
    def _full_is_storage_full(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if not is_disk_full(error, self._folder):
                raise
            raise no_room() from error
