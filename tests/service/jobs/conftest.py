"""Fixtures for jobs over a small repository, and a valve that pauses jobs at a given graph run."""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from hsoftmax.service import Settings
from hsoftmax.service.jobs.blocking_graph_runner import BlockingGraphRunner
from hsoftmax.service.jobs.database import Database
from hsoftmax.service.jobs.open_state import StateStore
from tests.service.conftest import HIDDEN, TARGETS, serving

from . import cluster

ENDED = ("completed", "failed", "cancelled", "expired")
SCORE = "/v1/models/words/score"

Json = dict[str, Any]


class JobsClient:
    """HTTP client of the routes for files and batches of one app."""

    def __init__(self, http: TestClient, state: Path) -> None:
        self.http = http
        self.state = state

    def upload(self, content: bytes | str, name: str = "rows.ndjson", expect: int = 200) -> Json:
        response = self.http.post(
            "/v1/files", files={"file": (name, content)}, data={"purpose": "batch"}
        )
        assert response.status_code == expect, response.text
        return response.json()

    def create(self, key: str | None = None, expect: int = 200, **query: Any) -> Json:
        headers = {} if key is None else {"idempotency-key": key}
        query = {"endpoint": SCORE, "completion_window": "24h", **query}
        response = self.http.post("/v1/batches", json=query, headers=headers)
        assert response.status_code == expect, response.text
        return response.json()

    def start(self, rows: list[Json], name: str = "rows.ndjson", **query: Any) -> Json:
        """Upload the rows as NDJSON and create a job over them."""
        file = self.upload(ndjson(rows), name)
        return self.create(input_file_id=file["id"], **query)

    def batch(self, id: str) -> Json:
        return self.http.get(f"/v1/batches/{id}").json()

    def cancel(self, id: str) -> Json:
        return self.http.post(f"/v1/batches/{id}/cancel").json()

    def until(self, id: str, *statuses: str, seconds: float = 20) -> Json:
        """Wait until the batch has one of the statuses, by default until it has ended."""
        deadline = time.monotonic() + seconds
        while (batch := self.batch(id))["status"] not in (statuses or ENDED):
            assert time.monotonic() < deadline, batch
            time.sleep(0.01)
        return batch

    def run(self, rows: list[Json], **query: Any) -> Json:
        """Create a job over the rows, wait until it has ended and return its batch."""
        return self.until(self.start(rows, **query)["id"])

    def content(self, file: str | None) -> bytes:
        if file is None:
            return b""
        response = self.http.get(f"/v1/files/{file}/content")
        assert response.status_code == 200, response.text
        return response.content

    def records(self, batch: Json, field: str = "output_file_id") -> list[Json]:
        return [json.loads(line) for line in self.content(batch[field]).splitlines()]

    def errors(self, batch: Json) -> list[Json]:
        return self.records(batch, "error_file_id")


def parts_dir(jobs: JobsClient, id: str) -> Path:
    """Return the folder with the finished shards of a job."""
    return jobs.state / "jobs" / id / "output.ndjson.parts"


def count_shards(jobs: JobsClient, id: str) -> int:
    """Count the shards on the disk. Rows that have passed the valve may not be in one yet."""
    return len(list(parts_dir(jobs, id).glob("shard-????????")))


def until_held(jobs: JobsClient, id: str, valve: "Valve") -> None:
    """Wait until the valve holds runs of the job, and at least one shard is on the disk.

    If there is no shard after two seconds, another run passes: threads arrive in any order, so the
    run that the first shard needs may be held.
    """
    eventually(lambda: valve.passed > valve.passing)
    started = time.monotonic()
    while not count_shards(jobs, id):
        seconds = time.monotonic() - started
        assert seconds < 60
        valve.passing += seconds > 2
        time.sleep(0.1)


def ndjson(rows: list[Json]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def make_rows(count: int, id: str = "custom_id") -> list[Json]:
    rng = np.random.default_rng(4)
    return [
        {id: f"r{i}", "input": rng.normal(size=HIDDEN).astype(np.float32).tolist(),
         "target": int(rng.integers(TARGETS)), "sequence": i // 7}
        for i in range(count)
    ]  # fmt: skip


@pytest.fixture(
    scope="module",
    autouse=True,
    params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)],
)
def database_kind(request) -> Iterator[None]:
    """Every test of jobs runs with each kind of database."""
    if request.param == "sqlite":
        yield
        return
    with cluster.running() as running:
        CLUSTERS.append(running)
        yield
        CLUSTERS.pop()


CLUSTERS: list[cluster.Cluster] = []  # the server of the tests that run with PostgreSQL, or none


def state_settings(state: Path) -> dict[str, Any]:
    """Return the settings of a state in this folder, or with a database of its own."""
    if not CLUSTERS:
        return {"state": state}
    return {"state": CLUSTERS[-1].url(state), "state_files": state}


@contextmanager
def opened_database(state: Path) -> Iterator[Database]:
    """Open the database of the state beside the service."""
    settings = Settings(repository=state, **state_settings(state))
    with closing(StateStore(settings).open()) as database:
        yield database


@contextmanager
def serving_jobs(repository: Path, state: Path, **settings: Any) -> Iterator[JobsClient]:
    settings = {"job_shard_rows": 10, **state_settings(state), **settings}
    with serving(repository, **settings) as http:
        yield JobsClient(http, state)


@pytest.fixture(scope="session")
def repository(exported, tmp_path_factory) -> Path:
    """Repository with only the bundle `words`, as many tests load it again."""
    folder = tmp_path_factory.mktemp("jobs") / "repository"
    shutil.copytree(exported / "repository" / "words", folder / "words")
    return folder


@pytest.fixture(scope="module")
def jobs(repository, tmp_path_factory) -> Iterator[JobsClient]:
    with serving_jobs(repository, tmp_path_factory.mktemp("state")) as client:
        yield client


class Valve:
    """Lets the first `passing` graph runs of jobs pass, and holds the others until it is opened.

    `passed` counts all runs that arrived at the valve.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passing: float = float("inf")
        self.passed = 0
        self._counting = threading.Lock()
        original = BlockingGraphRunner.__call__

        def hold(run: BlockingGraphRunner, request: Any) -> Any:
            with self._counting:
                self.passed += 1
                run_number = self.passed
            while run_number > self.passing:
                run._check()  # the runner checks before each retry, too
                time.sleep(0.005)
            return original(run, request)

        monkeypatch.setattr(BlockingGraphRunner, "__call__", hold)

    def open(self) -> None:
        self.passing = float("inf")


@pytest.fixture
def valve(monkeypatch) -> Valve:
    return Valve(monkeypatch)


def eventually(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait until the condition is true, and return its result."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return result
