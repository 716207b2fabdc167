"""Triton's perf_analyzer over HTTP and gRPC: it reads our metadata and statistics, and measures.

With `--input-tensor-format=json` version 2.60.0 corrupts its own memory before it sends anything.
"""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.service.conftest import HIDDEN
from tests.service.grpc.test_server import address_of
from tests.service.processes import Process, Start

from .environments import run
from .perf_analyzer import perf_analyzer

pytestmark = pytest.mark.clients

NUM_REQUESTS = 40


@pytest.fixture
def grpc_server(start: Start) -> Process:
    """A server whose log has no line of an error."""
    process = start(grpc_port=0)
    yield process
    log = process.read_log()
    assert '"level":"error"' not in log, log[-6000:]


@pytest.fixture
def data(tmp_path) -> Path:
    """A file of inputs: it would make up numbers, which are no targets."""
    row = np.linspace(-1, 1, HIDDEN).round(3).tolist()
    inputs = [{"hidden": {"content": row, "shape": [1, HIDDEN]},
               "target": {"content": [target], "shape": [1, 1]}} for target in (3, 7)]  # fmt: skip
    file = tmp_path / "data.json"
    file.write_text(json.dumps({"data": inputs}))
    return file


@pytest.mark.parametrize(
    "options",
    [
        ["-i", "http"],
        ["-i", "http", "--output-tensor-format=json"],
        ["-i", "grpc"],
        ["-i", "grpc", "--streaming"],
    ],
    ids=["http", "http with answers as JSON", "grpc", "grpc as a stream"],
)
def test_it_measures_and_counts_what_it_sent(grpc_server, data, tmp_path, options):
    url = address_of(grpc_server) if "grpc" in options else grpc_server.address
    report = tmp_path / "report.csv"
    arguments = ["-m", "words", "-u", url, "--input-data", data, "--concurrency-range", "2",
                 f"--request-count={NUM_REQUESTS}", "-f", report, *options]  # fmt: skip
    printed = run(*perf_analyzer(Path(sys.executable)), *arguments)
    assert f"Request count: {NUM_REQUESTS}" in printed, printed
    (measured,) = csv.DictReader(report.read_text().splitlines())
    assert float(measured["Inferences/Second"]) > 0
    stats = grpc_server.get("/v2/models/words/versions/2/stats")[1]["model_stats"][0]
    assert stats["inference_stats"]["success"]["count"] >= NUM_REQUESTS
    assert stats["inference_stats"]["fail"]["count"] == 0
