"""Jobs over the tiny repository, with a valve that holds them where a test wants them."""

import json
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from hsoftmax.service.jobs.blocking_graph_runner import BlockingGraphRunner
from tests.service.conftest import HIDDEN, TARGETS, serving

ENDED = ("completed", "failed", "cancelled", "expired")
SCORE = "/v1/models/words/score"

Json = dict[str, Any]


class Client:
    """What a client of jobs does, over one app."""

    def __init__(self, http: TestClient, state: Path) -> None:
        self.http = http
        self.state = state

    def upload(self, content: bytes | str, name: str = "rows.ndjson", expect: int = 200) -> Json:
        answer = self.http.post(
            "/v1/files", files={"file": (name, content)}, data={"purpose": "batch"}
        )
        assert answer.status_code == expect, answer.text
        return answer.json()

    def create(self, key: str | None = None, expect: int = 200, **query: Any) -> Json:
        headers = {} if key is None else {"idempotency-key": key}
        query = {"endpoint": SCORE, "completion_window": "24h", **query}
        answer = self.http.post("/v1/batches", json=query, headers=headers)
        assert answer.status_code == expect, answer.text
        return answer.json()

    def start(self, rows: list[Json], name: str = "rows.ndjson", **query: Any) -> Json:
        """A job over these rows, as lines of JSON."""
        file = self.upload(ndjson(rows), name)
        return self.create(input_file_id=file["id"], **query)

    def batch(self, id: str) -> Json:
        return self.http.get(f"/v1/batches/{id}").json()

    def cancel(self, id: str) -> Json:
        return self.http.post(f"/v1/batches/{id}/cancel").json()

    def until(self, id: str, *statuses: str, seconds: float = 20) -> Json:
        give_up = time.monotonic() + seconds
        while (batch := self.batch(id))["status"] not in (statuses or ENDED):
            assert time.monotonic() < give_up, batch
            time.sleep(0.01)
        return batch

    def done(self, rows: list[Json], **query: Any) -> Json:
        """The job over these rows once it has ended."""
        return self.until(self.start(rows, **query)["id"])

    def content(self, file: str | None) -> bytes:
        if file is None:
            return b""
        answer = self.http.get(f"/v1/files/{file}/content")
        assert answer.status_code == 200, answer.text
        return answer.content

    def records(self, batch: Json, field: str = "output_file_id") -> list[Json]:
        return [json.loads(line) for line in self.content(batch[field]).splitlines()]

    def errors(self, batch: Json) -> list[Json]:
        return self.records(batch, "error_file_id")


def parts(jobs: Client, id: str) -> Path:
    """Where a job's output grows."""
    return jobs.state / "jobs" / id / "output.ndjson.parts"


def shards(jobs: Client, id: str) -> int:
    """How many of a job that runs are on the disk; what has passed the valve need not be yet."""
    with sqlite3.connect(parts(jobs, id) / "ledger.sqlite") as ledger:
        return ledger.execute("SELECT count(*) FROM shards").fetchone()[0]


def ndjson(rows: list[Json]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def make_rows(count: int, id: str = "custom_id") -> list[Json]:
    rng = np.random.default_rng(4)
    return [
        {id: f"r{i}", "input": rng.normal(size=HIDDEN).astype(np.float32).tolist(),
         "target": int(rng.integers(TARGETS)), "sequence": i // 7}
        for i in range(count)
    ]  # fmt: skip


@contextmanager
def serving_jobs(repository: Path, state: Path, **settings: Any) -> Iterator[Client]:
    with serving(repository, state=state, **{"job_shard_rows": 10, **settings}) as http:
        yield Client(http, state)


@pytest.fixture(scope="session")
def repository(exported, tmp_path_factory) -> Path:
    """No more than is asked, as it is loaded again and again."""
    folder = tmp_path_factory.mktemp("jobs") / "repository"
    shutil.copytree(exported / "repository" / "words", folder / "words")
    return folder


@pytest.fixture(scope="module")
def jobs(repository, tmp_path_factory) -> Iterator[Client]:
    with serving_jobs(repository, tmp_path_factory.mktemp("state")) as client:
        yield client


class Valve:
    """Lets so many runs of graphs pass, and holds the others until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passing: float = float("inf")
        self.passed = 0
        self._counting = threading.Lock()
        really = BlockingGraphRunner.__call__

        def held(run: BlockingGraphRunner, asked: Any) -> Any:
            with self._counting:
                self.passed += 1
                number = self.passed
            while number > self.passing:
                run._check()  # as the run itself does before it asks again
                time.sleep(0.005)
            return really(run, asked)

        monkeypatch.setattr(BlockingGraphRunner, "__call__", held)

    def open(self) -> None:
        self.passing = float("inf")


@pytest.fixture
def valve(monkeypatch) -> Valve:
    return Valve(monkeypatch)


def eventually(holds: Callable[[], Any], seconds: float = 10) -> Any:
    give_up = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < give_up
        time.sleep(0.01)
    return found
