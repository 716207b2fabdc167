"""A PostgreSQL server of its own for tests, in a temporary folder, and one database for each state.

It runs as the user `postgres` or `nobody` if the tests run as root, which PostgreSQL refuses.
"""

import hashlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

USER, PASSWORD = "jobs", "s3cret-of-the-tests"


class Cluster:
    """A server that can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bin = _programs()
        self.port = free_port()
        self._identity = _identity()
        if self._identity:
            os.chown(folder, pwd.getpwnam(self._identity["user"]).pw_uid, -1)
        self._create()
        self.start()

    def url(self, state: Path, password: str = PASSWORD) -> str:
        """Return the URL of the database that belongs to this state, created at first use."""
        name = f"jobs_{hashlib.sha256(str(state).encode()).hexdigest()[:16]}"
        with self.connect() as db:
            if not db.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
                db.execute(f'CREATE DATABASE "{name}"'.encode())
        return f"postgresql://{USER}:{password}@127.0.0.1:{self.port}/{name}"

    def connect(self) -> Any:  # a connection of psycopg, which the default run does not import
        import psycopg

        return psycopg.connect(
            host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, dbname="postgres",
            autocommit=True,
        )  # fmt: skip

    def start(self) -> None:
        options = f"-p {self.port} -k {self._folder} -h 127.0.0.1 -c fsync=off"
        self._run("pg_ctl", "-D", "data", "-o", options, "-l", "log", "-w", "-t", "60", "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", "data", "-m", "immediate", "-w", "stop")

    def _create(self) -> None:
        password = self._folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        self._run(
            "initdb", "-D", "data", "-U", USER, "-A", "scram-sha-256", "--pwfile=password",
            "--no-sync", "--locale=C", "-E", "UTF8",
        )  # fmt: skip

    def _run(self, program: str, *arguments: str) -> None:
        # Into a file: the server inherits the descriptors, so that a pipe would stay open.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                [self._bin / program, *arguments], cwd=self._folder, stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT, timeout=120, check=False,
                **self._identity,
            )  # fmt: skip
            output.seek(0)
            assert done.returncode == 0, output.read()


@contextmanager
def running() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as folder:  # sockets: short paths
        cluster = Cluster(Path(folder))
        try:
            yield cluster
        finally:
            cluster.stop()


def _programs() -> Path:
    """Return the folder of PostgreSQL's programs; Debian has them in no folder of PATH."""
    folders = [*Path("/usr/lib/postgresql").glob("*/bin")]
    if (found := shutil.which("pg_ctl")) is not None:
        folders.append(Path(found).parent)
    for folder in sorted(folders, reverse=True):
        if (folder / "initdb").exists():
            return folder
    pytest.fail("needs PostgreSQL: apt-get install postgresql")


def _identity() -> dict:
    """Return the arguments of subprocess that select a user who is not root."""
    if os.geteuid() != 0:
        return {}
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    user = known.get("postgres") or known["nobody"]
    return {"user": user.pw_name, "group": user.pw_gid, "extra_groups": []}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
