"""Two replicas, killed again and again: models, inputs and outputs in S3, jobs in PostgreSQL.

They need these packages: apt-get install postgresql haproxy
"""

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.jobs.cluster import Cluster
from tests.service.jobs.cluster import running as running_cluster
from tests.service.jobs.conftest import SCORE
from tests.service.jobs.stopping_service import STOPPING_SERVICE
from tests.service.jobs.test_replicas import (
    TASKS,
    Replicas,
    expect_completed,
    haproxy,
    make_input,
    reference,
)
from tests.service.processes import Process

from .conftest import upload
from .object_servers import BUCKET, ObjectServer
from .test_jobs import content, put

pytestmark = [pytest.mark.stores, pytest.mark.timeout(1200)]

KILLS, SEED = 20, 7
PHASES = ["claim", "fetch", "download", "shard", "assembly", "publish", "upload", "finish"]
JOBS = f"s3://{BUCKET}/jobs"


class StoreReplicas(Replicas):
    """Replicas that serve the models of a store, each with a cache of its own."""

    def _start(self, port: int) -> Process:
        cache = self.settings["state_files"].with_name(f"cache-{port}")
        settings = {"job_urls": JOBS, "store_cache": cache, **self.settings}
        return Process(self._repository, STOPPING_SERVICE, port=port, **settings)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def replicas(s3: ObjectServer, bundles, tmp_path: Path, cluster, monkeypatch) -> Iterator[Replicas]:
    upload(bundles(1), f"{s3.url}/words/1")
    monkeypatch.setenv("PHASES", "")  # removes the variable in the end
    replicas = StoreReplicas(s3.url, tmp_path, cluster)
    try:
        with haproxy(replicas, tmp_path):
            yield replicas
    finally:
        replicas.end()


def test_killed_replicas_write_every_output_once(bundles, tmp_path, replicas):
    wanted = reference(bundles(1).parents[1], tmp_path / "reference")
    rng = random.Random(SEED)
    phases = PHASES + rng.choices(PHASES, k=KILLS - len(PHASES))
    rng.shuffle(phases)
    began = time.monotonic()
    ids, killed = [], []
    for i, phase in enumerate(phases):
        source = put(f"{JOBS}/in/{i}.ndjson", make_input())
        query = {"input_url": source, "output_url": f"{JOBS}/out/{i}.ndjson", "endpoint": SCORE}
        query |= TASKS[i % len(TASKS)]
        replicas.stop_in(phase)
        ids.append(json.loads(replicas.call("POST", "/v1/batches", json.dumps(query)))["id"])
        killed.append(replicas.kill_in(phase, rng))
    assert set(killed) == {0, 1}
    for i, id in enumerate(ids):
        output = wanted[i % len(TASKS)]
        batch = expect_completed(replicas, id, output)
        assert content(batch["output_url"]) == output[0]
    print(f"{time.monotonic() - began:.0f} s; killed {list(zip(phases, killed, strict=True))}")
    listed = json.loads(replicas.call("GET", "/v1/batches?limit=100"))["data"]
    assert [one["id"] for one in listed] == ids[::-1]  # each request made one job
    assert not list((tmp_path / "state" / "uploads").iterdir())
