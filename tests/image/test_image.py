"""The built images run as a platform team runs them: without rights, on a read-only root.

`make test-image` builds them before (IMAGES="cpu full" by default).
"""

import http.client
import io
import json
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prometheus_client.parser import text_string_to_metric_families

import hsoftmax
from tests.service.test_http_clients import free_port

from .containers import Container, output_of, read_config

pytestmark = pytest.mark.image

ROOT = Path(__file__).parents[2]
VARIANTS = os.environ.get("IMAGES", "cpu full").split()
MAX_MEGABYTES = {"cpu": 320, "full": 560}  # of /opt
HIDDEN, TARGETS = 8, 20
CONNECTIONS = 16
MODEL = "words"
PACKAGES_OF_FULL = (
    "grpc", "grpc_health", "grpc_reflection", "obstore", "opentelemetry.exporter.otlp.proto.http",
    "opentelemetry.sdk.trace", "psycopg", "pyarrow.parquet", "sqlalchemy", "tokenizers",
)  # fmt: skip
INSTALLED = (
    "import json, importlib.metadata as m;"
    "print(json.dumps({d.metadata['Name']: d.version for d in m.distributions()}))"
)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A repository of one model, which every user may read."""
    folder = tmp_path_factory.mktemp("models")
    rng = np.random.default_rng(0)
    arrays = {
        "W1": rng.standard_normal((HIDDEN, 4)),
        "b1": rng.standard_normal(4),
        "W2": rng.standard_normal((4, HIDDEN, 5)),
        "b2": rng.standard_normal((4, 5)),
    }
    np.savez(folder / "weights.npz", **{k: v.astype(np.float32) for k, v in arrays.items()})
    output_of(
        "hsoftmax", "export", str(folder / "weights.npz"), "--from", "theano",
        "--to", str(folder / "repository" / MODEL),
    )  # fmt: skip
    for path in [folder.parent, folder, *folder.rglob("*")]:
        path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o444))
    return folder / "repository"


@pytest.fixture(params=VARIANTS)
def variant(request) -> str:
    return request.param


@pytest.fixture
def image(variant) -> str:
    return f"localhost/hsoftmax:{variant}"


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def metrics_port() -> int:
    return free_port()


@pytest.fixture
def container(image, models, port, metrics_port, tmp_path) -> Iterator[Container]:
    state = tmp_path / "state"
    state.mkdir()
    variables = {
        "HSOFTMAX_PORT": str(port),
        "HSOFTMAX_METRICS_PORT": str(metrics_port),
        "HSOFTMAX_DRAIN_DELAY": "2",
    }
    started = Container(image, state, models, variables)
    try:
        started.until("loaded")
        yield started
    finally:
        started.remove()


@pytest.fixture
def http_client(container, port) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        yield client


def expected(models: Path, hidden: np.ndarray, targets: list[int]) -> np.ndarray:
    return hsoftmax.load(models / MODEL / "1").probabilities(hidden, targets)


def is_json(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def test_its_config_is_what_platforms_read(image, variant):
    config = read_config(image)
    assert config["User"] == "10001:10001"
    assert config["StopSignal"] == "SIGTERM"
    assert list(config["Volumes"]) == ["/state"]
    assert config["Healthcheck"]["Test"][:2] == ["CMD", "python"]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.title"] == "hsoftmax"
    assert re.fullmatch(r"[0-9a-f]{40}|unknown", labels["org.opencontainers.image.revision"])


def test_it_lists_its_packages_and_is_not_large(container, variant):
    bill = json.loads(container.run("cat", "/opt/hsoftmax/sbom.cdx.json"))
    assert bill["bomFormat"] == "CycloneDX"
    listed = {part["name"].lower(): part["version"] for part in bill["components"]}
    installed = json.loads(container.run("python", "-c", INSTALLED))
    for name in installed.keys() - {"hsoftmax"}:
        assert listed[name.lower().replace("_", "-")] == installed[name]
    megabytes = int(container.run("du", "-sm", "/opt").split()[0])
    print(f"{variant}: {megabytes} MB in /opt, {len(installed)} packages")
    assert megabytes <= MAX_MEGABYTES[variant]


def test_it_answers_without_rights_on_a_read_only_root(
    container, http_client, models, metrics_port
):
    assert container.run("id", "-u") == "10001"
    with pytest.raises(Exception, match=r"returned non-zero exit status"):
        container.run("touch", "/opt/hsoftmax/file")
    hidden = np.random.default_rng(1).standard_normal((1, HIDDEN)).astype(np.float32)
    query = {"inputs": hidden.tolist(), "targets": [3]}
    response = http_client.post(f"/v1/models/{MODEL}/probabilities", json=query)
    assert response.status_code == 200, response.text
    np.testing.assert_allclose(
        response.json()["probabilities"], expected(models, hidden, [3]), rtol=1e-6
    )
    page = httpx2.get(f"http://127.0.0.1:{metrics_port}/metrics").text
    families = text_string_to_metric_families(page)
    samples = [sample for family in families for sample in family.samples]
    requests = [s.value for s in samples if s.name == "hsoftmax_requests_total"]
    assert sum(requests) >= 1
    assert container.run("python", "-c", _health_command()) == ""
    assert [line for line in container.read_log() if not is_json(line)] == []


def _health_command() -> str:
    """Return the code of the image's health check."""
    line = next(
        line for line in (ROOT / "Dockerfile").read_text().splitlines() if 'CMD ["python"' in line
    )
    return json.loads(line.strip().removeprefix("CMD "))[2]


def test_it_has_what_its_variant_promises(container, metrics_port, variant):
    page = httpx2.get(f"http://127.0.0.1:{metrics_port}/metrics").text
    (tasks,) = (family for family in text_string_to_metric_families(page)
                if family.name == "hsoftmax_task_info")  # fmt: skip
    assert "native" in {sample.labels["runtime"] for sample in tasks.samples}
    for package in PACKAGES_OF_FULL if variant == "full" else ():
        assert container.run("python", "-c", f"import {package}") == ""


def test_the_full_image_scores_a_parquet_file(container, http_client, variant, models):
    if variant != "full":
        pytest.skip("only the image `full` reads Parquet")
    hidden = np.random.default_rng(2).standard_normal((50, HIDDEN)).astype(np.float32)
    targets = [i % TARGETS for i in range(50)]
    table = pa.table({"input": hidden.tolist(), "target": targets})
    file = io.BytesIO()
    pq.write_table(table, file)
    uploaded = http_client.post(
        "/v1/files", files={"file": ("rows.parquet", file.getvalue())}, data={"purpose": "batch"}
    ).json()
    batch = http_client.post(
        "/v1/batches",
        json={
            "input_file_id": uploaded["id"],
            "endpoint": f"/v1/models/{MODEL}/score",
            "completion_window": "24h",
            "task": "target_log_prob",
            "output_format": "parquet",
        },
    ).json()
    deadline = time.monotonic() + 60
    while batch.get("status") not in ("completed", "failed") and time.monotonic() < deadline:
        time.sleep(0.2)
        batch = http_client.get(f"/v1/batches/{batch['id']}").json()
    assert batch["status"] == "completed", batch
    content = http_client.get(f"/v1/files/{batch['output_file_id']}/content").content
    got = pq.read_table(io.BytesIO(content)).to_pydict()["log_prob"]
    np.testing.assert_allclose(np.exp(got), expected(models, hidden, targets), rtol=1e-5)


class Load:
    """Connections that stay open and ask at a pace, until the service refuses a new one."""

    def __init__(self, port: int, per_second: float) -> None:
        self._port, self._pause = port, CONNECTIONS / per_second
        self.outcomes: Counter[object] = Counter()
        self._query = json.dumps({"inputs": [[0.5] * HIDDEN], "targets": [3]})
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(CONNECTIONS)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        while not self._stopped.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
            try:
                connection.connect()
            except ConnectionRefusedError:
                return  # the service has ended
            self._ask_until_closed(connection)
            connection.close()

    def _ask_until_closed(self, connection: http.client.HTTPConnection) -> None:
        while not self._stopped.is_set():
            started = time.monotonic()
            try:
                connection.request("POST", f"/v1/models/{MODEL}/probabilities", self._query)
                response = connection.getresponse()
                response.read()
            except (ConnectionError, http.client.HTTPException):
                self.outcomes["reset"] += 1  # an idle connection that closed as the request left
                return
            self.outcomes[response.status] += 1
            if response.getheader("connection") == "close":
                return
            time.sleep(max(0.0, self._pause - (time.monotonic() - started)))

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(30)


def test_sigterm_under_load_fails_no_request(container, http_client, port):
    peak = Load(port, 1e9)
    time.sleep(3)
    peak.stop()
    per_second = peak.outcomes[200] / 3
    load = Load(port, per_second / 2)
    time.sleep(1)
    container.stop()
    code = container.process.wait(60)
    load.stop()
    print(f"peak {per_second:.0f} a second; at half of it: {dict(load.outcomes)}")
    assert code == 0
    assert set(load.outcomes) <= {200, "reset"}
    assert load.outcomes[200] > per_second / 2
    assert load.outcomes["reset"] <= 2 * CONNECTIONS
    lines = container.read_log()
    assert [line for line in lines if not is_json(line)] == []
    assert json.loads(lines[-1])["event"] in ("stopped", "ended", "exit"), lines[-1]
