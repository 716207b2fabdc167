"""The database in PostgreSQL, shared by all replicas. The extra `postgres` brings its libraries.

SQLAlchemy reads the URL, keeps the connections, and notices those that broke. A database that does
not answer is JobsUnavailable, and the next try follows a second later at the earliest, so that
requests do not queue up behind connections that time out. No message has the URL or a value.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, TypeVar

from sqlalchemy import URL, CursorResult, create_engine, text
from sqlalchemy import Connection as SqlConnection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from hsoftmax.scoring.migrations import Migrations, migrate
from hsoftmax.service.errors import JobsUnavailable

from .database import Connection
from .migrations import POSTGRES
from .reserve import no_room

NAME = "postgresql"  # for error messages

_CONNECT_TIMEOUT_S = 3
_STATEMENT_TIMEOUT_MS = 30_000  # also for a lock that another replica holds
_RETRY_INTERVAL_S = 1.0  # after a connection that failed
_NUM_CONNECTIONS = 4
_ALONE_LOCK = 0x6873_6D01  # of PostgreSQL's advisory locks: `transaction(alone=True)`
_DISK_FULL = "53100"

T = TypeVar("T")


class PostgresConnection:
    """A connection inside a transaction, for statements with parameters `:name`."""

    def __init__(self, connection: SqlConnection) -> None:
        self._connection = connection

    def execute(
        self, statement: str, values: Mapping[str, Any] = MappingProxyType({}), /
    ) -> CursorResult[Any]:
        return self._connection.execute(text(statement), _without_nul(values))


class PostgresDatabase:
    """A pool of connections. The owner closes it once.

    Raises:
        JobsUnavailable: the database does not answer, or refuses the user; the cause says why.
        NewerSchema: a newer version of hsoftmax wrote it.
    """

    shared = True
    now = "extract(epoch FROM clock_timestamp())"

    def __init__(self, url: URL, migrations: Migrations = POSTGRES) -> None:
        self._engine = create_engine(
            url,
            hide_parameters=True,
            pool_pre_ping=True,
            pool_size=_NUM_CONNECTIONS,
            pool_timeout=_CONNECT_TIMEOUT_S,
            connect_args={
                "connect_timeout": _CONNECT_TIMEOUT_S,
                "application_name": "hsoftmax",
                "options": f"-c statement_timeout={_STATEMENT_TIMEOUT_MS}",
                "tcp_user_timeout": 10_000,
            },
        )
        self._lock = threading.Lock()
        self._retry_at = 0.0
        try:
            migrate(lambda: self.transaction(alone=True), migrations, NAME)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._engine.dispose()

    def fill_reserve(self) -> None:
        """The room is the database's own."""

    @contextmanager
    def transaction(self, *, alone: bool = False) -> Iterator[Connection]:
        """Run the block as one transaction, rolled back on any exception.

        Raises:
            StorageFull: the database's disk has no room for the change.
            JobsUnavailable: the database does not answer.
        """
        with self._failures(), self._engine.begin() as connection:
            if alone:
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_ALONE_LOCK})"))
            yield PostgresConnection(connection)

    def change_with_reserve(self, change: Callable[[Connection], T], *, alone: bool = False) -> T:
        """Run `change` as one transaction."""
        with self.transaction(alone=alone) as db:
            return change(db)

    def rows(self, query: str, /, **values: object) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        with self.transaction() as db:
            return [tuple(row) for row in db.execute(query, values).fetchall()]

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn failures of the database into the service's errors."""
        with self._lock:
            if time.monotonic() < self._retry_at:
                raise _no_answer()
        try:
            yield
        except SQLAlchemyError as error:
            if sqlstate_of(error) == _DISK_FULL:
                raise no_room() from error
            with self._lock:
                self._retry_at = time.monotonic() + _RETRY_INTERVAL_S
            raise _no_answer() from error


def sqlstate_of(error: SQLAlchemyError) -> str | None:
    """Return PostgreSQL's code of the error, or None if it has none."""
    return getattr(error.orig, "sqlstate", None) if isinstance(error, DBAPIError) else None


def reason_of(error: JobsUnavailable) -> str:
    """Return the cause for the log: the driver's first line, which has no password."""
    cause = error.__cause__
    original = cause.orig if isinstance(cause, DBAPIError) else cause
    lines = str(original or error).strip().splitlines()
    return lines[0] if lines else type(original).__name__


def _no_answer() -> JobsUnavailable:
    return JobsUnavailable("jobs: expected the database of --state to answer, got nothing")


def _without_nul(values: Mapping[str, Any]) -> dict[str, Any]:
    """Replace NUL, which no text in PostgreSQL has: a look-up with it then finds nothing."""
    return {
        name: value.replace("\0", "\N{REPLACEMENT CHARACTER}") if isinstance(value, str) else value
        for name, value in values.items()
    }
