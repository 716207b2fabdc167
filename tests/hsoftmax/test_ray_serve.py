"""The service on Ray Serve: a query equals the reference, and health follows the bundle."""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import pytest
import yaml

from hsoftmax import exporter, models
from hsoftmax.service import Settings
from tests.scoring.conftest import HIDDEN, LABELS, TARGETS, make_model

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]  # Ray's own are not errors

FOLDER = Path(__file__).parents[2] / "deploy" / "ray"
CONFIG = yaml.safe_load((FOLDER / "serve.yaml").read_text())
START_TIMEOUT_S = 60


def test_every_argument_in_the_configuration_is_a_setting():
    assert CONFIG["applications"][0]["args"].keys() <= Settings.model_fields.keys()


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster with one node."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 2, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster.address
    cluster.shutdown()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def written(path: Path, repository: Path, port: int) -> Path:
    """Writes the configuration for another repository and port."""
    config = {**CONFIG, "http_options": {"host": "127.0.0.1", "port": port}}
    (application,) = config["applications"]
    arguments = {"repository": str(repository), "threads": 1}
    config["applications"] = [{**application, "args": arguments}]
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    repository = tmp_path_factory.mktemp("repository")
    exporter.export_model(
        make_model(), exporter.parse_destination(repository / "words" / "1"), labels=LABELS
    )
    return repository


@pytest.fixture
def started(cluster, tmp_path) -> Iterator:
    """Returns a function that starts `serve run` and returns (URL, process)."""
    running = []

    def started(repository: Path) -> tuple[str, subprocess.Popen]:
        port = free_port()
        config = written(tmp_path / "serve.yaml", repository, port)
        arguments = ["run", str(config), "--address", cluster]
        log = (tmp_path / "log").open("w")
        program = [sys.executable, "-m", "ray.serve.scripts", *arguments]
        process = subprocess.Popen(program, stdout=log, stderr=subprocess.STDOUT)
        running.append((process, log))
        return f"http://127.0.0.1:{port}", process

    yield started
    for process, log in running:
        process.terminate()
        process.wait(30)
        log.close()


def wait_until_served(url: str, process: subprocess.Popen) -> None:
    for _ in range(10 * START_TIMEOUT_S):
        assert process.poll() is None
        try:
            if httpx2.get(f"{url}/healthz/ready").status_code == 200:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"not ready in {START_TIMEOUT_S} s")


def test_a_query_equals_the_reference(started, repository):
    url, process = started(repository)
    wait_until_served(url, process)
    states = np.random.default_rng(0).normal(size=(5, HIDDEN)).astype(np.float32)
    targets = [0, 3, 5, 7, TARGETS - 1]
    query = {"inputs": states.tolist(), "targets": targets, "log": True}
    answer = httpx2.post(f"{url}/v1/models/words/probabilities", json=query)
    assert answer.status_code == 200
    wanted = models.hierarchical_softmax.target_log_prob(
        make_model(), states, np.arange(5), np.array(targets)
    )
    np.testing.assert_allclose(answer.json()["log_probabilities"], wanted, atol=1e-5)
    assert answer.headers["x-request-id"]
    wrong = httpx2.post(f"{url}/v1/models/words/probabilities", json={"inputs": [[1.0]]})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_query")


def test_without_a_bundle_no_replica_is_healthy(started, tmp_path):
    (tmp_path / "empty").mkdir()
    expect_unhealthy(started, tmp_path, tmp_path / "empty", "the repository has no bundle")


def test_a_replica_refuses_a_bundle_with_one_flipped_bit(started, repository, tmp_path):
    copy = shutil.copytree(repository, tmp_path / "copy")
    path = copy / "words" / "1" / "weights.bin"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    expect_unhealthy(started, tmp_path, copy, "weights.bin: expected SHA-256")


def expect_unhealthy(started, tmp_path: Path, repository: Path, reason: str) -> None:
    """Asserts that the log says this reason, and that no replica answers."""
    url, process = started(repository)
    for _ in range(10 * START_TIMEOUT_S):
        if reason in (tmp_path / "log").read_text():
            break
        assert process.poll() is None
        time.sleep(0.1)
    else:
        raise AssertionError(f"not said in {START_TIMEOUT_S} s")
    with pytest.raises(httpx2.HTTPError):
        httpx2.get(f"{url}/healthz/ready").raise_for_status()
