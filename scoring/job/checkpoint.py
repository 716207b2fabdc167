"""The checkpoint of a job: its identity and its finished shards, in SQLite.

It uses a write-ahead log and syncs every commit. A shard is recorded after its file is in place, in
one transaction with its sums and its error records, so a recorded shard is always whole. A
checkpoint of an older schema is brought up to date when it is opened.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from hsoftmax.scoring.failures import Failures, FailuresByCode, add_failures
from hsoftmax.scoring.formats import Position
from hsoftmax.scoring.migrations import Migrations, open_database
from hsoftmax.scoring.perplexity import Tally
from hsoftmax.scoring.requirements import RowId

MIGRATIONS: Migrations = [
    [
        "CREATE TABLE IF NOT EXISTS job (identity TEXT NOT NULL)",
        "CREATE TABLE IF NOT EXISTS shards (number INTEGER PRIMARY KEY, rows INTEGER,"
        " scored INTEGER, failed INTEGER, size INTEGER, sha256 TEXT, file INTEGER,"
        ' "offset" INTEGER, line INTEGER)',
        "CREATE TABLE IF NOT EXISTS tallies (shard INTEGER, sequence, words INTEGER, oov INTEGER,"
        " failed INTEGER, log_prob REAL)",
        "CREATE TABLE IF NOT EXISTS flaws (shard INTEGER, record TEXT)",
        "CREATE TABLE IF NOT EXISTS assembled (summary TEXT NOT NULL)",
    ],
    ["CREATE TABLE failures (shard INTEGER, code TEXT, rows INTEGER, example TEXT)"],
]
_SHARD_COLUMNS = 'number, rows, scored, failed, size, sha256, file, "offset", line'


@dataclass(frozen=True, slots=True)
class Shard:
    """A finished shard: the counts, size and hash of its file, and the position after its rows."""

    number: int
    rows: int
    scored: int
    failed: int
    size: int
    sha256: str
    end: Position


class CheckpointStore:
    """The checkpoint of one job. One thread at a time may use it, and no other process.

    Raises:
        sqlite3.Error: the file is no database, or cannot be written.
        NewerSchema: a newer version of hsoftmax wrote it.
    """

    def __init__(self, path: Path, migrations: Migrations = MIGRATIONS) -> None:
        self._db = open_database(path, migrations, str(path), exclusive=True)

    def close(self) -> None:
        self._db.close()

    def identity(self) -> dict[str, Any] | None:
        """Returns the job's identity, or None if no job has begun."""
        row = self._db.execute("SELECT identity FROM job").fetchone()
        return None if row is None else dict(json.loads(row[0]))

    def begin(self, identity: Mapping[str, Any]) -> None:
        """Records the identity of a new job, in a new file."""
        self._db.execute("INSERT INTO job (identity) VALUES (?)", [json.dumps(identity)])

    def replace_identity(self, identity: Mapping[str, Any]) -> None:
        """Records more about the same job, which an older version began."""
        self._db.execute("UPDATE job SET identity = ?", [json.dumps(identity)])

    def shards(self) -> list[Shard]:
        """Returns the finished shards in order, from the first one on without a gap."""
        rows = self._db.execute(f"SELECT {_SHARD_COLUMNS} FROM shards ORDER BY number")
        return [_shard(*row) for row in rows]

    def record(
        self,
        shard: Shard,
        tallies: Mapping[RowId, Tally],
        flaws: Iterable[str],
        failures: FailuresByCode,
    ) -> None:
        """Records a finished shard with its sums, its error records and its failures by code."""
        number, end = shard.number, shard.end
        self._db.execute("BEGIN")
        self._db.execute(
            f"INSERT INTO shards ({_SHARD_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [number, shard.rows, shard.scored, shard.failed, shard.size, shard.sha256,
             end.file, end.offset, end.line],
        )  # fmt: skip
        self._db.executemany(
            "INSERT INTO tallies (shard, sequence, words, oov, failed, log_prob)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            [(number, name, t.words, t.oov, t.failed, t.log_prob) for name, t in tallies.items()],
        )
        self._db.executemany(
            "INSERT INTO flaws (shard, record) VALUES (?, ?)", [(number, f) for f in flaws]
        )
        self._db.executemany(
            "INSERT INTO failures (shard, code, rows, example) VALUES (?, ?, ?, ?)",
            [(number, code, f.rows, f.example) for code, f in failures.items()],
        )
        self._db.execute("COMMIT")

    def forget(self, number: int) -> None:
        """Drops a shard and all after it, so that they are made again."""
        self._db.execute("BEGIN")
        self._db.execute("DELETE FROM shards WHERE number >= ?", [number])
        for table in ("tallies", "flaws", "failures"):
            self._db.execute(f"DELETE FROM {table} WHERE shard >= ?", [number])
        self._db.execute("DELETE FROM assembled")
        self._db.execute("COMMIT")

    def sequences(self) -> Iterator[tuple[RowId, Tally]]:
        """Yields the sums of each sequence, in the order of their first rows."""
        self._db.execute(
            "CREATE TEMP TABLE IF NOT EXISTS totals (first INTEGER PRIMARY KEY, sequence,"
            " words, oov, failed, log_prob)"
        )
        self._db.execute("DELETE FROM totals")
        self._db.executemany("INSERT INTO totals VALUES (?, ?, ?, ?, ?, ?)", self._totals())
        for row in self._db.execute("SELECT * FROM totals ORDER BY first"):
            yield row[1], Tally(*row[2:])

    def error_records(self) -> Iterator[str]:
        """Yields the error records that go into a file beside the output, in order."""
        for (record,) in self._db.execute("SELECT record FROM flaws ORDER BY rowid"):
            yield record

    def failures(self) -> FailuresByCode:
        """Returns the failures by code; those of shards of an older version are missing."""
        rows = self._db.execute("SELECT code, rows, example FROM failures ORDER BY rowid")
        return add_failures({code: Failures(count, example)} for code, count, example in rows)

    def summary(self) -> dict[str, Any] | None:
        """Returns the summary of the assembled output, or None if it is not assembled."""
        row = self._db.execute("SELECT summary FROM assembled").fetchone()
        return None if row is None else dict(json.loads(row[0]))

    def assembled(self, summary: Mapping[str, Any]) -> None:
        """Records the summary of the assembled output."""
        self._db.execute("DELETE FROM assembled")
        self._db.execute("INSERT INTO assembled (summary) VALUES (?)", [json.dumps(summary)])

    def _totals(self) -> Iterator[tuple[Any, ...]]:
        rows = self._db.execute(
            "SELECT sequence, rowid, words, oov, failed, log_prob FROM tallies"
            " ORDER BY sequence, rowid"
        )
        for name, group in groupby(rows, key=lambda row: row[0]):
            parts = list(group)
            total = sum((Tally(*row[2:]) for row in parts), Tally())
            yield (parts[0][1], name, total.words, total.oov, total.failed, total.log_prob)


def _shard(
    number: int, rows: int, scored: int, failed: int, size: int, sha256: str, *end: int
) -> Shard:
    return Shard(number, rows, scored, failed, size, sha256, Position(*end))
