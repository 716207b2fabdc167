"""A served bundle with fewer targets than the default k, and labels that UTF-8 cannot hold."""

import json

import numpy as np
import pyarrow as pa
import pytest

from hsoftmax.models.hierarchical_softmax import log_probs
from tests.service.conftest import HIDDEN, expect_error, odd_model, serving
from tests.service.jobs.conftest import serving_jobs

SHOWN = ("plain", "a\nb", "\\udc80", "\\n", "end\r", "\ufeffmark")
N = len(SHOWN)
ROW = np.random.default_rng(3).normal(size=HIDDEN).astype(np.float32)
TOP_K = "/v1/models/odd/top_k"


FULL = log_probs(odd_model(), ROW[None])[0]
ORDER = np.argsort(-FULL).tolist()


@pytest.fixture(scope="module")
def repository(exported):
    return exported / "odd_repository"


@pytest.fixture(scope="module")
def client(repository):
    with serving(repository) as client:
        yield client


def expect_all(result: dict) -> None:
    assert result["targets"] == ORDER
    assert result["labels"] == [SHOWN[target] for target in ORDER]
    np.testing.assert_allclose(result["probabilities"], np.exp(FULL[ORDER]), rtol=1e-5)


def test_k_is_all_targets_by_default_where_there_are_fewer_than_ten(client):
    response = client.post(TOP_K, json={"inputs": [ROW.tolist()]})
    assert response.status_code == 200, response.text
    expect_all(json.loads(response.content.decode("utf-8"))["results"][0])


def test_so_is_the_k_of_a_matrix_in_and_of_columns_out(client):
    body = pa.BufferOutputStream()
    table = pa.table({"inputs": [ROW.tolist()]})
    with pa.ipc.new_stream(body, table.schema) as stream:
        stream.write_table(table)
    kind = "application/vnd.apache.arrow.stream"
    response = client.post(
        TOP_K, content=body.getvalue().to_pybytes(), headers={"content-type": kind, "accept": kind}
    )
    assert response.status_code == 200, response.text
    (result,) = pa.ipc.open_stream(response.content).read_all().to_pylist()
    expect_all(result)


@pytest.mark.parametrize("k", [10, N + 1])
def test_a_k_that_was_asked_for_is_still_refused(client, k):
    for url in (TOP_K, f"/v1/models/odd/score?task=top_k&k={k}"):
        response = client.post(url, json={"inputs": [ROW.tolist()], "k": k})
        expect_error(response, 422, "invalid_query", f"k: expected 1 to {N}, got {k}")


def test_a_stream_has_the_same_default(client):
    response = client.post(
        "/v1/models/odd/score?task=top_k",
        content=json.dumps({"id": 1, "input": ROW.tolist()}) + "\n",
        headers={"content-type": "application/x-ndjson"},
    )
    assert response.status_code == 200, response.text
    expect_all(json.loads(response.content.decode("utf-8").split("\n")[0]))


@pytest.mark.parametrize("output", ["ndjson", "csv", "parquet"])
def test_a_job_has_the_same_default(repository, tmp_path, output):
    with serving_jobs(repository, tmp_path / "state") as jobs:
        rows = [{"custom_id": "a", "input": ROW.tolist()}]
        batch = jobs.run(rows, endpoint=TOP_K, output_format=output)
        assert batch["request_counts"]["completed"] == 1, batch
        if output == "ndjson":
            expect_all(jobs.records(batch)[0])


@pytest.mark.parametrize("target", range(N))
def test_a_target_is_found_by_the_label_that_answers_show(client, target):
    query = {"inputs": [ROW.tolist()], "targets": [SHOWN[target]], "log": True}
    response = client.post("/v1/models/odd/probabilities", json=query)
    assert response.status_code == 200, response.text
    np.testing.assert_allclose(response.json()["log_probabilities"], [FULL[target]], atol=1e-5)
