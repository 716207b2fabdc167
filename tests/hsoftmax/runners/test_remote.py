"""`hsoftmax score --url`: the same records as from the bundle itself, and errors of the server.

The server here implements the documented routes with the NumPy reference.
"""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hsoftmax import models
from hsoftmax.cli import run
from tests.scoring.conftest import HIDDEN, LABELS, TARGETS, make_model, make_rows, read, write

REFERENCE = models.hierarchical_softmax
INFO = {"name": "words", "version": "3", "versions": ["3"], "digest": "d" * 64, "family": "",
        "hidden_size": HIDDEN, "num_targets": TARGETS, "labels": True,
        "tasks": ["target_log_prob", "log_probs", "top_k", "sample"]}  # fmt: skip


def answer(route: str, body: dict[str, Any]) -> dict[str, Any]:
    full = REFERENCE.log_probs(make_model(), np.array(body["inputs"], dtype=np.float32))
    if route == "probabilities":
        targets = body.get("targets") or [range(TARGETS)] * len(full)
        rows = [[full[i, t] for t in row] for i, row in enumerate(targets)]
        return {"log_probabilities": rows}
    if route == "top_k":
        order = np.argsort(-full, axis=1)[:, : body["k"]]
    else:
        rng = np.random.default_rng(body["seed"])
        order = rng.integers(0, TARGETS, (len(full), body["num_samples"]))
    return {"results": [
        {"targets": row.tolist(), "labels": [LABELS[t] for t in row], "exact": True, "blocks": 1,
         "log_probabilities": full[i][row].tolist()} for i, row in enumerate(order)
    ]}  # fmt: skip


@dataclass
class Server:
    """The state of the server: the routes requested, and how often it is still busy."""

    url: str = ""
    busy: int = 0
    status: int = 503
    digest: str = INFO["digest"]
    routes: list[str] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.respond(200, INFO)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            route = self.path.rsplit("/", 1)[1]
            state.routes.append(route)
            state.keys.add(self.headers["authorization"])
            huge = [i for i, row in enumerate(body["inputs"]) if max(row) > 1e30]
            if huge:
                sentence = f"inputs row {huge[0]}: expected logits within float32"
                self.respond(422, {"error": sentence, "code": "logits_overflow"})
            elif len(state.routes) > 1 and state.busy:  # the first asks for the labels
                state.busy -= 1
                self.respond(state.status, {"error": "busy", "code": "overloaded"})
            else:
                self.respond(200, answer(route, body))

        def respond(self, status: int, content: dict[str, Any]) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.send_header("x-hsoftmax-digest", state.digest)
            if status in (429, 503):
                self.send_header("retry-after", "0")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    http_server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http_server.daemon_threads = True
    thread = threading.Thread(target=http_server.serve_forever, args=(0.01,))
    thread.start()
    state.url = f"http://127.0.0.1:{http_server.server_port}"
    yield state
    http_server.shutdown()
    thread.join()
    http_server.server_close()


def score(server: Server, folder: Path, task: str, *options: str, rows=None) -> list[dict]:
    path = folder / "in.ndjson"
    if not path.exists():
        write(path, rows or make_rows(11))
    output = folder / "out.ndjson"
    arguments = ["score", "words", str(path), str(output), "--task", task, "--url", server.url]
    code = run([*arguments, "--batch", "4", *options])
    return read(output) if code == 0 else []


def test_log_probabilities_equal_the_reference(server, tmp_path):
    rows = make_rows(11)
    rows[4]["target"] = "étoile"
    rows[6]["target"] = "unheard"
    got = score(server, tmp_path, "target_log_prob", rows=rows)
    assert got[6]["code"] == "unknown_label"
    states = np.array([row["input"] for row in rows], dtype=np.float32)
    full = REFERENCE.log_probs(make_model(), states)
    assert got[4]["log_prob"] == pytest.approx(full[4, TARGETS - 1])
    assert got[5]["log_prob"] == pytest.approx(full[5, rows[5]["target"]])


@pytest.mark.parametrize("task", ["probabilities", "log_probs", "top_k", "sample", "perplexity"])
def test_every_task_works_over_http(server, tmp_path, task):
    got = score(server, tmp_path, task, "--k", "3", "--num-samples", "2")
    assert [record["id"] for record in got] == list(range(11))
    assert not any("error" in record for record in got)
    if task in ("top_k", "sample"):
        assert got[0]["labels"] == [LABELS[t] for t in got[0]["targets"]]


@pytest.mark.parametrize("task", ["target_log_prob", "log_probs", "top_k", "sample", "perplexity"])
def test_rows_whose_logits_overflow_fail_alone(server, tmp_path, task):
    rows = make_rows(11)
    options = ["--k", "3", "--num-samples", "2"]
    clean = score(server, tmp_path, task, *options, rows=rows)
    for i in (1, 2, 9):
        rows[i]["input"] = [3e38] * HIDDEN
    write(tmp_path / "in.ndjson", rows)
    (tmp_path / "out.ndjson").unlink()
    got = score(server, tmp_path, task, *options)
    assert {got[i]["code"] for i in (1, 2, 9)} == {"logits_overflow"}
    for i in (9, 2, 1):
        del got[i], clean[i]
    assert got == clean


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_gets_the_request_again(server, tmp_path, status):
    server.busy, server.status = 3, status
    assert len(score(server, tmp_path, "log_probs")) == 11
    assert len(server.routes) == 1 + 3 + 3


def test_any_other_error_ends_the_job_with_one_line(server, tmp_path, capsys):
    server.busy, server.status = 1, 400
    assert score(server, tmp_path, "log_probs", "--threads", "1") == []
    error = capsys.readouterr().err
    assert "400: busy" in error
    assert error.count("\n") == 1
    assert score(server, tmp_path, "log_probs", "--resume")


def test_a_response_of_another_bundle_is_an_error(server, tmp_path, capsys):
    server.digest = "e" * 64
    assert score(server, tmp_path, "log_probs") == []
    assert "expected answers of bundle dddddddddddd" in capsys.readouterr().err


def test_a_server_with_other_kernels_does_not_resume_a_job(server, tmp_path, monkeypatch, capsys):
    server.busy, server.status = 1, 400
    assert score(server, tmp_path, "target_log_prob", "--threads", "1") == []
    monkeypatch.setitem(INFO, "native", ["target_log_prob"])
    capsys.readouterr()
    assert score(server, tmp_path, "target_log_prob", "--resume") == []
    assert "expected ONNX Runtime (--native off), as the job began" in capsys.readouterr().err
    monkeypatch.setitem(INFO, "native", ["top_k"])
    assert len(score(server, tmp_path, "target_log_prob", "--resume")) == 11


def test_the_api_key_is_sent(server, tmp_path):
    score(server, tmp_path, "log_probs", "--key", "secret")
    assert server.keys >= {"Bearer secret"}


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://localhost", "file:///etc"])
def test_an_invalid_url_is_a_wrong_call(tmp_path, capsys, url):
    source = write(tmp_path / "in.ndjson", make_rows(1))
    arguments = ["words", str(source), str(tmp_path / "out.ndjson"), "--task", "top_k"]
    assert run(["score", *arguments, "--url", url]) == 2
    assert f"url: expected http:// or https:// and a host, got {url}" in capsys.readouterr().err


def test_a_missing_server_is_a_one_line_error(tmp_path, capsys):
    path = write(tmp_path / "in.ndjson", make_rows(2))
    arguments = ["score", "words", str(path), str(tmp_path / "o.csv"), "--task", "top_k"]
    assert run([*arguments, "--url", "http://127.0.0.1:9"]) == 1
    assert "http://127.0.0.1:9: expected an answer" in capsys.readouterr().err


def test_a_threshold_works_over_http(server, tmp_path):
    records = score(server, tmp_path, "top_k", "--k", "3", "--threshold", "0.2")
    full = np.exp(REFERENCE.log_probs(make_model(), inputs(make_rows(11))))
    assert len(records) == 11
    for row, record in zip(full, records, strict=True):
        above = [t for t in np.argsort(-row).tolist() if row[t] > 0.2]
        assert record["targets"] == above[:3]
        assert record["truncated"] is (len(above) > 3)


def inputs(rows: list[dict]) -> np.ndarray:
    return np.array([row["input"] for row in rows], dtype=np.float32)
