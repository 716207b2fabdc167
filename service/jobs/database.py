"""The database of files and batches as its stores see it, in SQLite or in PostgreSQL.

The statements are the same for both. They have named parameters, `:name`, and lock the rows that
they change with FOR UPDATE, which SQLite does not need: its transactions lock the whole database.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from .schemas import ENDED

ACTIVE = f"status NOT IN {ENDED}"  # the text of a tuple of strings is the same in SQL

T = TypeVar("T")


class Result(Protocol):
    """Rows of a query, or the number of rows that a change met."""

    @property
    def rowcount(self) -> int: ...
    def fetchone(self) -> Any: ...  # noqa: ANN401  a row or None
    def fetchall(self) -> Any: ...  # noqa: ANN401  rows


class Connection(Protocol):
    """A connection inside a transaction."""

    def execute(self, statement: str, values: Mapping[str, Any] = ..., /) -> Result: ...


class Database(Protocol):
    """A database that is open. The owner closes it once.

    Attributes:
        shared: several replicas execute the jobs in it, so that each job needs a lease
        now: SQL for the database's own time in Unix seconds, by which all replicas measure leases
    """

    @property
    def shared(self) -> bool: ...

    @property
    def now(self) -> str: ...

    def close(self) -> None: ...

    def fill_reserve(self) -> None:
        """Take the room that changes on a full disk need, if the database has a disk here."""

    def transaction(self, *, alone: bool = False) -> AbstractContextManager[Connection]:
        """Run the block as one transaction, rolled back on any exception.

        `alone` is for changes that depend on more rows than they lock, such as a limit on all
        files: no other transaction that is `alone` runs meanwhile, in any replica.

        Raises:
            StorageFull: the disk has no room for the change.
            JobsUnavailable: the database does not answer.
        """

    def change_with_reserve(self, change: Callable[[Connection], T], *, alone: bool = False) -> T:
        """Run a change that frees room, or ends a job, as one transaction; on a full disk too.

        Raises:
            StorageFull: there is no room, not even for such a change.
            JobsUnavailable: the database does not answer.
        """

    def rows(self, query: str, /, **values: object) -> list[tuple[Any, ...]]:
        """Return all rows of a query. Raises JobsUnavailable."""
