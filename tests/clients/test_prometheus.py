"""Prometheus reads the metrics, and every query of the dashboard has a result after traffic.

It needs this package: apt-get install prometheus
"""

import http.client
import json
import math
import re
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from tests.service.processes import Process
from tests.service.test_dashboard import DASHBOARD, EXPRESSIONS
from tests.service.test_http_clients import free_port

from .environments import ROOT, need, run

pytestmark = pytest.mark.clients

PACKAGE = "prometheus"
INTERVAL_S, TRAFFIC_S = 1, 12
SAMPLE = ROOT / "examples" / "state_of_the_union"
# Values for the variables of the dashboard.
VARIABLES = {"$job": ".*", "$__rate_interval": "10s"}
# The server of these tests has neither: their metrics have no series without them.
OF_KEYS_AND_STORES = re.compile(r"hsoftmax_(key_requests|store)_")


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """Repository with the sample bundle, large enough for requests that wait."""
    repository = tmp_path_factory.mktemp("large")
    command = [sys.executable, "-m", "hsoftmax", "export", SAMPLE / "weights.npz",
               "--labels", SAMPLE / "labels.txt", "--to", repository / "sotu" / "1"]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return repository


@pytest.fixture
def busy(start, large, tmp_path) -> Process:
    """A server with a metrics port, whose queue has room for two requests."""
    state = tmp_path / "state"
    return start(
        repository=large, state=state, max_queue_requests=2, job_shard_rows=50, metrics_port=0
    )


def queries() -> list[str]:
    assert len(EXPRESSIONS) > 20
    replaced = []
    for expression in EXPRESSIONS:
        for name, value in VARIABLES.items():
            expression = expression.replace(name, value)
        assert "$" not in expression, expression
        replaced.append(expression)
    return replaced


def test_the_dashboard_has_no_other_variables():
    used = set(re.findall(r"\$\w+", " ".join(EXPRESSIONS)))
    assert used == set(VARIABLES)
    assert DASHBOARD["panels"]


@pytest.mark.parametrize(
    "arguments",
    [("check", "config", "prometheus.yaml"), ("test", "rules", "rules_test.yaml")],
    ids=["config", "rules"],
)
def test_promtool_accepts_the_alerts(arguments):
    done = subprocess.run(
        [need("promtool", PACKAGE), *arguments],
        cwd=ROOT / "deploy" / "prometheus", capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout


def test_promtool_accepts_the_metrics(server):
    connection = server.connect()
    connection.request("GET", "/metrics")
    page = connection.getresponse().read().decode()
    done = subprocess.run(
        [need("promtool", PACKAGE), "check", "metrics"], input=page, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr + done.stdout


def test_promtool_accepts_every_query_as_a_rule(tmp_path):
    rules = [{"record": f"dashboard:query:{i}", "expr": one} for i, one in enumerate(queries())]
    path = tmp_path / "rules.json"  # JSON is YAML
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    told = run(need("promtool", PACKAGE), "check", "rules", path)
    assert f"{len(rules)} rules found" in told


def test_every_query_has_a_result(busy, tmp_path):
    with prometheus(busy, tmp_path) as ask, traffic(busy):
        time.sleep(TRAFFIC_S)
        results = {one: ask(one) for one in queries() if not OF_KEYS_AND_STORES.search(one)}
    nothing = [one for one, values in results.items() if not values]
    assert not nothing
    not_finite = [one for one, values in results.items() if not any(map(math.isfinite, values))]
    assert not not_finite


@contextmanager
def prometheus(server: Process, folder: Path) -> Iterator[Callable[[str], list[float]]]:
    """Run Prometheus on the metrics port; yield a function that returns a query's values."""
    port = free_port()
    config = folder / "prometheus.yml"
    scrape = {"job_name": "hsoftmax", "static_configs": [{"targets": [server.metrics_address]}]}
    times = {"scrape_interval": f"{INTERVAL_S}s", "scrape_timeout": f"{INTERVAL_S}s"}
    config.write_text(json.dumps({"global": times, "scrape_configs": [scrape]}))
    command = [need("prometheus", PACKAGE), f"--config.file={config}",
               f"--storage.tsdb.path={folder / 'tsdb'}",
               f"--web.listen-address=127.0.0.1:{port}"]  # fmt: skip
    url = f"http://127.0.0.1:{port}"

    def ask(query: str) -> list[float]:
        address = f"{url}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        with urllib.request.urlopen(address, timeout=30) as response:
            found = json.load(response)["data"]["result"]
        return [float(series["value"][1]) for series in found]

    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            _wait_for(f"{url}/-/ready", process)
            yield ask
        finally:
            process.terminate()
            process.wait(30)


def _wait_for(url: str, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(OSError):
            urllib.request.urlopen(url, timeout=5).close()
            return
        assert process.poll() is None, "prometheus ended"
        time.sleep(0.1)
    raise AssertionError(f"{url}: no answer")


@contextmanager
def traffic(server: Process) -> Iterator[None]:
    """Ask everything there is, until the block ends: so much that requests are refused."""
    _, described = server.get("/v1/models/sotu")
    rng = np.random.default_rng(2)
    states = rng.normal(size=(64, described["hidden_size"])).round(3).tolist()
    stopped = threading.Event()
    threads = [
        threading.Thread(target=work, args=(server, states, stopped))
        for work in (_questions, _questions, _questions, _questions, _leavers, _rows, _mistakes)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopped.set()
        for thread in threads:
            thread.join(60)


def _send(
    server: Process, path: str, body: bytes, headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    host, _, port = server.address.partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    with closing(connection), suppress(OSError, http.client.HTTPException):
        connection.request("POST", f"/v1/{path}", body, headers or {})
        response = connection.getresponse()
        return response.status, response.read()
    return 0, b""


def _questions(server: Process, states: list, stopped: threading.Event) -> None:
    targets = json.dumps({"inputs": states, "targets": [[1, 2]] * len(states)}).encode()
    plain = json.dumps({"inputs": states}).encode()
    while not stopped.is_set():
        _send(server, "models/sotu/probabilities", targets)
        _send(server, "models/sotu/top_k", plain)
        _send(server, "models/sotu/clusters", plain)
        _send(server, "models/sotu/top_k", plain, {"x-hsoftmax-timeout-ms": "1"})


def _leavers(server: Process, states: list, stopped: threading.Event) -> None:
    """Clients that leave before their answer."""
    body = json.dumps({"inputs": states}).encode()
    host, _, port = server.address.partition(":")
    while not stopped.is_set():
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
        with suppress(OSError):
            connection.request("POST", "/v1/models/sotu/probabilities", body)
            time.sleep(0.01)
        connection.close()


def _rows(server: Process, states: list, stopped: threading.Event) -> None:
    """A stream and a job, again and again."""
    lines = [json.dumps({"input": row, "target": 1}).encode() for row in states]
    content = b"\n".join([*lines, b'{"input": [1]}']) + b"\n"
    edge = "edge"
    form = b"".join((
        f'--{edge}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'.encode(),
        f'--{edge}\r\ncontent-disposition: form-data; name="file"; filename="r.ndjson"\r\n\r\n'
        .encode(), content, f"\r\n--{edge}--\r\n".encode(),
    ))  # fmt: skip
    kind = {"content-type": f"multipart/form-data; boundary={edge}"}
    while not stopped.is_set():
        _send(server, "models/sotu/score", content)
        status, file = _send(server, "files", form, kind)
        if status == 200:
            query = {"input_file_id": json.loads(file)["id"], "endpoint": "/v1/models/sotu/score"}
            _send(server, "batches", json.dumps(query).encode())
        time.sleep(0.5)


def _mistakes(server: Process, states: list, stopped: threading.Event) -> None:
    while not stopped.is_set():
        _send(server, "models/sotu/top_k", b'{"inputs": [[1]]}')
        time.sleep(0.1)
