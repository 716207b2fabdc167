"""A database of an older schema is brought up to date once; one of a newer schema is refused."""

import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from hsoftmax.scoring.errors import NewerSchema
from hsoftmax.scoring.job.checkpoint import MIGRATIONS as OF_CHECKPOINTS
from hsoftmax.scoring.migrations import Migrations, open_database
from hsoftmax.service.jobs.migrations import SQLITE as OF_JOBS
from tests.data import SCHEMA_1, copy_of

ADDED = ["ALTER TABLE shards ADD COLUMN added TEXT DEFAULT 'new'"]
PLANTED = [*OF_CHECKPOINTS, ADDED]
COUNT = 8


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        [(found,)] = db.execute("SELECT version FROM schema_version").fetchall()
        return found


def columns(path: Path, table: str) -> list[str]:
    with closing(sqlite3.connect(path)) as db:
        return [row[1] for row in db.execute(f"PRAGMA table_info({table})")]


def tables(path: Path) -> dict[str, list[str]]:
    """Each table with its columns, without the one that holds the version."""
    with closing(sqlite3.connect(path)) as db:
        found = db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    return {name: columns(path, name) for (name,) in found if name != "schema_version"}


def open_and_close(path: Path, migrations: Migrations) -> None:
    open_database(path, migrations, path.name).close()


@pytest.fixture
def before(tmp_path) -> Path:
    """The checkpoints of a job that was begun before schemas had numbers."""
    return copy_of("score/out.ndjson.parts", tmp_path / "parts") / "ledger.sqlite"


@pytest.mark.parametrize(
    ("name", "migrations"),
    [("score/out.ndjson.parts/ledger.sqlite", OF_CHECKPOINTS), ("state/jobs.sqlite", OF_JOBS)],
)
def test_migration_1_makes_the_tables_that_there_were_before_numbers(tmp_path, name, migrations):
    old = copy_of(Path(name).parent.as_posix(), tmp_path / "old") / Path(name).name
    wanted = tables(old)
    open_and_close(tmp_path / "new", migrations[:1])
    assert tables(tmp_path / "new") == wanted
    open_and_close(old, migrations[:1])
    assert (version(old), tables(old)) == (1, wanted)


def test_a_database_from_before_numbers_gets_every_migration(before):
    open_and_close(before, PLANTED)
    assert version(before) == len(PLANTED)
    with closing(sqlite3.connect(before)) as db:
        assert db.execute("SELECT number, rows, added FROM shards").fetchall() == [
            (0, 10, "new"),
            (1, 10, "new"),
        ]


def test_a_migration_is_applied_once(before):
    for _ in range(2):
        open_and_close(before, PLANTED)
    assert columns(before, "shards").count("added") == 1


def test_a_newer_schema_is_refused_and_left_alone(before):
    open_and_close(before, PLANTED)
    content = before.read_bytes()
    sentence = (
        f"^ledger.sqlite: expected schema version <= {len(PLANTED) - 1}, got {len(PLANTED)}: "
    )
    with pytest.raises(NewerSchema, match=sentence):
        open_and_close(before, OF_CHECKPOINTS)
    assert before.read_bytes() == content


def test_a_migration_that_fails_leaves_nothing_behind(before):
    wrong = [*PLANTED, ["CREATE TABLE more (a)", "INSERT INTO nowhere VALUES (1)"]]
    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        open_and_close(before, wrong)
    assert version(before) == len(PLANTED)
    assert "more" not in tables(before)
    open_and_close(before, [*PLANTED, ["CREATE TABLE more (a)"]])
    assert version(before) == len(PLANTED) + 1


@pytest.mark.parametrize("fresh", [True, False])
def test_threads_that_open_at_once_migrate_once(before, tmp_path, fresh):
    path = tmp_path / "fresh.sqlite" if fresh else before
    with ThreadPoolExecutor(COUNT) as pool:
        list(pool.map(lambda _: open_and_close(path, PLANTED), range(COUNT)))
    assert version(path) == len(PLANTED)


PROGRAM = """
import sys, time
from pathlib import Path
from hsoftmax.scoring.migrations import open_database
from hsoftmax.service.jobs.migrations import SQLITE
added = [f"ALTER TABLE batches ADD COLUMN added{i} TEXT" for i in range(20)]
print("ready", flush=True)
sys.stdin.readline()
for path in sys.argv[1:]:
    open_database(Path(path), [*SQLITE, added], "jobs").close()
"""


def test_processes_that_open_at_once_migrate_once(tmp_path):
    """Old databases and new ones, each of which all processes open."""
    old = [copy_of("state", tmp_path / f"state{i}") / "jobs.sqlite" for i in range(4)]
    paths = [*old, *(tmp_path / f"new{i}.sqlite" for i in range(20))]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *map(str, paths)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(COUNT)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:  # all of them, before any is waited for
        process.stdin.write("go\n")
        process.stdin.flush()
    ended = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * COUNT, ended
    assert [version(path) for path in paths] == [len(OF_JOBS) + 1] * len(paths)


def test_a_database_that_stays_locked_is_given_up(tmp_path, monkeypatch):
    path = tmp_path / "new.sqlite"
    monkeypatch.setattr("hsoftmax.scoring.migrations._TIMEOUT_S", 0.2)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        begun = time.monotonic()
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            open_and_close(path, OF_JOBS)
        assert time.monotonic() - begun < 10
        other.execute("ROLLBACK")
    open_and_close(path, OF_JOBS)


def test_the_stored_files_have_no_version_yet():
    """Else the tests above would show nothing."""
    for name in ("score/out.ndjson.parts/ledger.sqlite", "state/jobs.sqlite"):
        uri = f"file:{SCHEMA_1 / name}?mode=ro&immutable=1"
        with closing(sqlite3.connect(uri, uri=True)) as db:
            found = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'schema_version'")
            assert found.fetchall() == []
