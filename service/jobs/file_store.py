"""Stores files as rows of the database. The routes for files and the end of a job call it.

A row is added after its file is on the disk. A process that ends between the two leaves a file
without a row, which `retention.sweep` removes. `deletion` deletes both.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from hsoftmax.service.errors import InvalidQuery, StorageFull, UnknownFile

from .database import Connection, Database
from .ownership import VISIBLE
from .schemas import FileObject, Purpose
from .state_dir import StateDir

_COLUMNS = "id, purpose, filename, bytes, created_at, path, expires_at, owner"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """Row of a file.

    Attributes:
        path: relative to the folder of files
        expires_at: Unix seconds at which the client wants it removed; None if the service decides
        owner: name of the API key that uploaded it, or that created its job
    """

    id: str
    purpose: Purpose
    filename: str
    bytes: int
    created_at: int
    path: str
    expires_at: int | None = None
    owner: str | None = None

    def to_object(self, retention: float) -> FileObject:
        """Return the file as clients see it. `retention`, in seconds, is the longest of times."""
        kept_until = self.created_at + int(retention)
        return FileObject(
            id=self.id,
            bytes=self.bytes,
            created_at=self.created_at,
            expires_at=min(kept_until, self.expires_at or kept_until),
            filename=self.filename,
            purpose=self.purpose,
        )


def add_upload(database: Database, file: StoredFile, max_bytes: int) -> None:
    """Insert the row of an upload. Raises StorageFull if all files exceed `max_bytes` with it."""
    with database.transaction(alone=True) as db:
        insert_upload(db, file, max_bytes)


def insert_upload(db: Connection, file: StoredFile, max_bytes: int) -> None:
    """Insert the row in a transaction that is alone. Raises StorageFull like `add_upload`."""
    _expect_room(_used_bytes(db) + file.bytes, max_bytes)
    insert_file(db, file)


def insert_file(db: Connection, file: StoredFile) -> None:
    db.execute(
        f"INSERT INTO files ({_COLUMNS}) VALUES"
        " (:id, :purpose, :filename, :bytes, :created_at, :path, :expires_at, :owner)",
        asdict(file),
    )


def expect_file(db: Connection, id: str) -> None:
    """Raise UnknownFile unless the file has a row."""
    if not db.execute("SELECT 1 FROM files WHERE id = :id", {"id": id}).fetchone():
        raise unknown_file(id)


def expect_room(database: Database, extra_bytes: int, max_bytes: int) -> None:
    """Raise StorageFull if all files exceed `max_bytes` with `extra_bytes` more."""
    with database.transaction() as db:
        _expect_room(_used_bytes(db) + extra_bytes, max_bytes)


def find_file(database: Database, id: str, owner: str | None = None) -> StoredFile:
    """Return the file with this id. Raises UnknownFile."""
    rows = database.rows(
        f"SELECT {_COLUMNS} FROM files WHERE id = :id AND {VISIBLE}", id=id, owner=owner
    )
    if not rows:
        raise unknown_file(id)
    return StoredFile(*rows[0])


def list_files(
    database: Database,
    purpose: str | None,
    limit: int,
    after: str | None,
    newest_first: bool,
    owner: str | None = None,
) -> tuple[list[StoredFile], bool]:
    """Return (files, has_more): at most `limit` files that follow the file `after`."""
    start = _row_number(database, after, owner) if after is not None else None
    sign, order = ("<", "DESC") if newest_first else (">", "ASC")
    rows = database.rows(
        f"SELECT {_COLUMNS} FROM files WHERE {VISIBLE}"
        " AND (CAST(:purpose AS TEXT) IS NULL OR purpose = CAST(:purpose AS TEXT))"
        f" AND (CAST(:start AS BIGINT) IS NULL OR number {sign} CAST(:start AS BIGINT))"
        f" ORDER BY number {order} LIMIT :limit",
        owner=owner,
        purpose=purpose,
        start=start,
        limit=limit + 1,
    )
    return [StoredFile(*row) for row in rows[:limit]], len(rows) > limit


def unlink(state_dir: StateDir, path: str) -> None:
    (state_dir.folder / path).unlink(missing_ok=True)


def path_of(state_dir: StateDir, file: StoredFile) -> Path:
    """Return the path of a file. Raises UnknownFile if it is no longer on the disk."""
    path = state_dir.folder / file.path
    if not path.is_file():
        raise unknown_file(file.id)
    return path


def unknown_file(id: str) -> UnknownFile:
    return UnknownFile(f"file {id[:60]!r}: expected one that is here, got none of that id")


def _row_number(database: Database, id: str, owner: str | None) -> int:
    rows = database.rows(
        f"SELECT number FROM files WHERE id = :id AND {VISIBLE}", id=id, owner=owner
    )
    if not rows:
        raise InvalidQuery(f"after: expected the id of a file, got {id[:60]!r}")
    return int(rows[0][0])


def _used_bytes(db: Connection) -> int:
    return int(db.execute("SELECT coalesce(sum(bytes), 0) FROM files").fetchone()[0])


def _expect_room(num_bytes: int, max_bytes: int) -> None:
    if num_bytes > max_bytes:
        raise StorageFull(
            f"files: expected at most {max_bytes} bytes in all, got {num_bytes} with this"
        )
