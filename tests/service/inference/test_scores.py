"""fastText's own scores, which may exceed one, are given as they are by every way out."""

import io
import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from hsoftmax.models import huffman_softmax
from tests.models.trees import random_huffman
from tests.service.conftest import serving
from tests.service.jobs.conftest import serving_jobs

MODEL = random_huffman(12, 8, seed=3, compat="fasttext")
# Of such a row the sigmoids are 0 or 1, and fastText makes 1.00001 of each 1.
ROW = (np.random.default_rng(0).normal(size=(1, 8)) * 1000).astype(np.float32)
SCORES = np.exp(huffman_softmax.log_probs(MODEL, ROW))[0]
BEST = int(SCORES.argmax())
ARROW = "application/vnd.apache.arrow.stream"


@pytest.fixture(scope="module")
def scores(tmp_path_factory, repository):  # which is made before any service runs
    folder = tmp_path_factory.mktemp("scores")
    arrays = {"syn1": MODEL.syn1, "path": MODEL.path, "sign": MODEL.sign}
    np.savez(folder / "tree.npz", **arrays)
    # Not in this process: where a service has run, sessions of the exporter can't be opened.
    command = [sys.executable, "-m", "hsoftmax", "export", str(folder / "tree.npz")]
    to = ["--from", "huffman", "--compat", "fasttext", "--to", str(folder / "repository" / "tree")]
    subprocess.run([*command, *to], check=True, capture_output=True)
    return folder / "repository"


def test_a_score_exceeds_one():
    assert SCORES[BEST] > 1.00001  # further than any tolerance below


def test_http_gives_scores(scores):
    with serving(scores) as client:

        def post(operation, **query):
            query = {"inputs": ROW.tolist(), **query}
            return client.post(f"/v1/models/tree/{operation}", json=query).json()

        wanted = pytest.approx(SCORES.tolist(), rel=1e-5)
        assert post("probabilities")["probabilities"][0] == wanted
        assert post("probabilities", targets=[[BEST]])["probabilities"][0] == [wanted_of(BEST)]
        (best,) = post("top_k", k=1)["results"]
        assert (best["targets"], best["probabilities"]) == ([BEST], [wanted_of(BEST)])
        (drawn,) = post("sample", num_samples=1, seed=0, log=True)["results"]
        assert drawn["log_probabilities"] == [
            pytest.approx(np.log(SCORES[drawn["targets"][0]]), abs=1e-6)
        ]
        url, query = "/v1/models/tree/probabilities", {"inputs": ROW.tolist()}
        response = client.post(url, json=query, headers={"accept": "application/x-npy"})
        assert np.load(io.BytesIO(response.content))[0, BEST] == wanted_of(BEST)
        response = client.post(url, json=query, headers={"accept": ARROW})
        table = pa.ipc.open_stream(response.content).read_all()
        assert table["probabilities"][0][BEST].as_py() == wanted_of(BEST)


def wanted_of(target: int):
    return pytest.approx(SCORES[target], rel=2e-6)


def test_streams_and_jobs_give_scores(scores, tmp_path):
    row = {"id": "a", "input": ROW[0].tolist(), "target": BEST}
    with serving_jobs(scores, tmp_path) as jobs:
        url = "/v1/models/tree/score"
        response = jobs.http.post(url, params={"task": "probabilities"}, content=json.dumps(row))
        record, _ = map(json.loads, response.content.splitlines())
        assert record["probabilities"] == wanted_of(BEST)
        batch = jobs.run([row], endpoint=url, task="probabilities")
        (record,) = jobs.records(batch)
        assert record["probabilities"] == wanted_of(BEST)


@pytest.mark.parametrize(
    ("task", "field"),
    [("probabilities", "probabilities"), ("top_k", "probabilities"),
     ("target_log_prob", "log_prob"), ("perplexity", "log_prob")],
)  # fmt: skip
def test_the_command_gives_scores(scores, tmp_path, task, field):
    row = {"id": "a", "input": ROW[0].tolist(), "target": BEST}
    (tmp_path / "in.ndjson").write_text(json.dumps(row) + "\n")
    arguments = [scores / "tree", tmp_path / "in.ndjson", tmp_path / "out.ndjson", "--task", task]
    command = [sys.executable, "-m", "hsoftmax", "score", *map(str, arguments), "--k", "1"]
    subprocess.run(command, check=True, capture_output=True)
    got = json.loads((tmp_path / "out.ndjson").read_text())[field]
    wanted = SCORES[BEST] if field == "probabilities" else np.log(SCORES[BEST])
    assert (got[0] if task == "top_k" else got) == pytest.approx(wanted, abs=1e-6)
