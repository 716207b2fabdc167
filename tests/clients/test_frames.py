"""Polars, pandas and DuckDB write what `score`, streams, questions and jobs take, and read answers.

Every file and body holds the same rows, so that all of them have the same results.
"""

import http.client
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from hsoftmax import models
from tests.service.conftest import SERVED, TARGETS, TOLERANCE
from tests.service.processes import Process

from .environments import PROGRAMS, python_environment, run

pytestmark = pytest.mark.clients

ARROW = "application/vnd.apache.arrow.stream"
MODEL = SERVED["words", 2]


@pytest.fixture(scope="module")
def python() -> Path:
    return python_environment("frames") / "python"


@pytest.fixture(scope="module")
def written(python, tmp_path_factory) -> Path:
    """Folder with everything that the three libraries wrote, and with the right results."""
    folder = tmp_path_factory.mktemp("frames")
    run(python, PROGRAMS / "frames_write.py", folder)
    hidden = np.load(folder / "input.npy")
    rows = np.arange(len(hidden))
    expected = models.reference(MODEL).target_log_prob(MODEL, hidden, rows, rows % TARGETS)
    np.save(folder / "expected.npy", expected)
    return folder


def post(server: Process, path: str, body: bytes, content_type: str, accept: str = "*/*") -> bytes:
    host, _, port = server.address.partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    headers = {"content-type": content_type, "accept": accept}
    connection.request("POST", path, body, headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    assert response.status == 200, (path, content)
    return content


def files(folder: Path) -> list[Path]:
    found = sorted(folder.iterdir())
    assert len(found) > 5
    return found


def test_questions(server, written):
    expected = np.load(written / "expected.npy")
    for path in files(written / "questions"):
        url = "/v1/models/words/probabilities?log=true"
        answer = json.loads(post(server, url, path.read_bytes(), ARROW))
        got = answer["log_probabilities"]
        np.testing.assert_allclose(got, expected, atol=TOLERANCE, err_msg=path.name)
    body = (written / "decimals").read_bytes()
    (decimal,) = json.loads(post(server, url, body, ARROW))["log_probabilities"]
    row = [0.5, -0.25, 1.5, 2.0, 0.1, 0.2, 0.3, -1.0]
    query = json.dumps({"inputs": [row], "targets": [3], "log": True}).encode()
    plain = json.loads(post(server, "/v1/models/words/probabilities", query, "application/json"))
    assert [decimal] == plain["log_probabilities"]


def test_streams(server, written):
    expected = np.load(written / "expected.npy")
    for path in files(written / "streams"):
        answer = post(server, "/v1/models/words/score", path.read_bytes(), ARROW, ARROW)
        table = pa.ipc.open_stream(answer).read_all()
        got = table.column("log_prob").to_pylist()
        np.testing.assert_allclose(got, expected, atol=TOLERANCE, err_msg=path.name)
        assert table.column("id").to_pylist() == list(range(len(expected))), path.name


def test_jobs(start, written, tmp_path):
    expected = np.load(written / "expected.npy")
    server = start(state=tmp_path / "state", input_root=written, max_jobs=200)
    batches = {
        path: json.loads(post(server, "/v1/batches", _query(path, written), "application/json"))
        for path in files(written / "files")
    }
    for path, batch in batches.items():
        done = _until_ended(server, batch["id"])
        assert done["request_counts"]["completed"] == len(expected), (path.name, done)
        connection = server.connect()
        connection.request("GET", f"/v1/files/{done['output_file_id']}/content")
        lines = connection.getresponse().read().splitlines()
        connection.close()
        got = [json.loads(line)["log_prob"] for line in lines]
        np.testing.assert_allclose(got, expected, atol=TOLERANCE, err_msg=path.name)


def _query(path: Path, root: Path) -> bytes:
    relative = str(path.relative_to(root))
    query: dict[str, Any] = {"input_path": relative, "endpoint": "/v1/models/words/score"}
    return json.dumps(query | {"output_format": "ndjson"}).encode()


def _until_ended(server: Process, id: str) -> dict:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        _, batch = server.get(f"/v1/batches/{id}")
        if batch["status"] in ("completed", "failed"):
            return batch
        time.sleep(0.05)
    raise AssertionError(batch)


def test_score_and_answers_are_read_by_all_three(server, repository, written, python, tmp_path):
    """Runs `score` on an input of each format, and gives its outputs to the three libraries."""
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    bundle = repository / "words" / "2"
    names = ("polars-category-stream.arrow", "polars-array.parquet", "pandas-text.arrow",
             "duckdb-enum.parquet", "polars.csv", "duckdb-list.ndjson")  # fmt: skip
    for i, name in enumerate(names):
        for extension in ("parquet", "arrow", "csv", "ndjson"):
            if i and extension != "ndjson":
                continue
            output = outputs / f"{i}.{extension}"
            command = [sys.executable, "-m", "hsoftmax", "score", bundle, written / "files" / name,
                       output, "--task", "target_log_prob"]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
    for side in outputs.glob("*.summary.json"):
        side.unlink()
    question = (written / "questions" / "polars-category").read_bytes()
    url = "/v1/models/words"
    for name, path in {
        "answer-probabilities": f"{url}/probabilities?log=true",
        "answer-top_k": f"{url}/top_k?k=3",
    }.items():
        body = question if "top_k" not in name else _without_targets(question)
        (outputs / name).write_bytes(post(server, path, body, ARROW, ARROW))
    rows = (written / "streams" / "polars-category").read_bytes()
    (outputs / "answer-stream").write_bytes(post(server, f"{url}/score", rows, ARROW, ARROW))
    np.save(tmp_path / "expected.npy", np.load(written / "expected.npy"))
    assert "read 36" in run(python, PROGRAMS / "frames_read.py", tmp_path)


def _without_targets(body: bytes) -> bytes:
    table = pa.ipc.open_stream(body).read_all().select(["inputs"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as out:
        out.write_table(table)
    return sink.getvalue().to_pybytes()
