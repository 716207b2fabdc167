"""`threshold` of top_k over HTTP: in queries, streams and jobs, of every family."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from hsoftmax import exporter
from hsoftmax.models.hierarchical_softmax import log_probs
from tests.exporter.sources.fasttext_files import FastTextFile
from tests.service.conftest import SERVED, TARGETS, expect_error, serving

FAMILIES = Path(__file__).parents[3] / "data" / "schema_1" / "repository"
URL = "/v1/models/words/top_k"


def expected(probs, k: int, threshold: float) -> tuple[list[int], bool]:
    """The targets above the threshold, at most k, and whether there are more."""
    above = [
        t for t in np.argsort(-np.array(probs), kind="stable").tolist() if probs[t] > threshold
    ]
    return above[:k], len(above) > k


@pytest.mark.parametrize("k", [1, 2, TARGETS])
@pytest.mark.parametrize("threshold", [0, 1e-4, 0.03, 0.1, 0.26, 0.9, 1])
def test_it_gives_all_targets_above(ask, hidden, k, threshold):
    results = ask("top_k", inputs=hidden.tolist(), k=k, threshold=threshold)["results"]
    probs = np.exp(log_probs(SERVED["words", 2], hidden))
    for row, result in zip(probs, results, strict=True):
        assert (result["targets"], result["truncated"]) == expected(row, k, threshold)
        assert len(result["labels"]) == len(result["probabilities"]) == len(result["targets"])
        assert all(p > threshold for p in result["probabilities"])
        assert result["exact"] is True


def test_k_is_ten_beside_it_by_default(ask, hidden):
    (result,) = ask("top_k", inputs=hidden[:1].tolist(), threshold=0)["results"]
    assert len(result["targets"]) == 10
    assert result["truncated"] is True


def test_log_does_not_change_what_the_threshold_is(ask, hidden):
    plain = ask("top_k", inputs=hidden.tolist(), threshold=0.1)["results"]
    log = ask("top_k", inputs=hidden.tolist(), threshold=0.1, log=True)["results"]
    assert [row["targets"] for row in plain] == [row["targets"] for row in log]


@pytest.mark.parametrize("threshold", [-0.1, 1.5])
def test_it_is_a_probability(client, hidden, threshold):
    query = {"inputs": hidden.tolist(), "threshold": threshold}
    sentence = f"threshold: expected 0 to 1, got {threshold}"
    expect_error(client.post(URL, json=query), 422, "invalid_query", sentence)
    response = client.post(
        f"/v1/models/words/score?task=top_k&threshold={threshold}",
        content=json.dumps({"input": hidden[0].tolist()}),
    )
    expect_error(response, 422, "invalid_query", sentence)


def test_the_largest_k_fits_a_limit_that_the_threshold_keeps(repository, hidden):
    query = {"inputs": hidden.tolist(), "k": TARGETS}
    with serving(repository, max_values=3 * 4) as client:
        expect_error(client.post(URL, json=query), 413, "too_large")
        assert client.post(URL, json={**query, "threshold": 0.25}).status_code == 200


@pytest.fixture(scope="module")
def families():
    with serving(FAMILIES) as client:
        yield client


@pytest.mark.parametrize(
    "name", ["adaptive", "hierarchical", "hierarchical_fp16", "hierarchical_int8", "huffman"]
)
@pytest.mark.parametrize("threshold", [0, 0.01, 0.1, 0.3])
def test_every_family_has_it(families, name, threshold):
    sizes = families.get(f"/v1/models/{name}").json()
    rng = np.random.default_rng(4)
    rows = rng.normal(scale=0.3, size=(20, sizes["hidden_size"])).round(3).tolist()
    url = f"/v1/models/{name}"
    full = families.post(f"{url}/probabilities", json={"inputs": rows}).json()["probabilities"]
    query = {"inputs": rows, "k": 4, "threshold": threshold}
    results = families.post(f"{url}/top_k", json=query).json()["results"]
    compared = 0
    for probs, result in zip(full, results, strict=True):
        if min(abs(p - threshold) for p in probs) > 1e-5:  # no tie but for rounding
            targets, truncated = expected(probs, 4, threshold)
            assert sorted(result["targets"]) == sorted(targets)
            assert result["truncated"] is truncated
            compared += 1
    assert compared >= 10


def test_fasttexts_own_scores_have_it(tmp_path):
    labels = {f"__label__l{i}": 9 - i for i in range(8)}
    (tmp_path / "m.bin").write_bytes(FastTextFile(labels=labels).content())
    to = tmp_path / "repository" / "lid" / "1"
    options = exporter.SourceOptions(compat="fasttext")
    exporter.export_file(tmp_path / "m.bin", to, source="fasttext", options=options)
    with serving(tmp_path / "repository") as client:
        row = [0.1, -0.2, 0.3, 0.4]
        url = "/v1/models/lid"
        (full,) = client.post(f"{url}/probabilities", json={"inputs": [row]}).json()[
            "probabilities"
        ]
        query = {"inputs": [row], "k": 8, "threshold": 0.1}
        (result,) = client.post(f"{url}/top_k", json=query).json()["results"]
        assert result["targets"] == expected(full, 8, 0.1)[0]


def test_other_formats_have_it(client, hidden):
    stream = io.BytesIO()
    np.save(stream, hidden)
    headers = {
        "content-type": "application/x-npy", "accept": "application/vnd.apache.arrow.stream",
    }  # fmt: skip
    for threshold in (0.1, 0.99999):
        params = {"threshold": threshold, "k": 4}
        response = client.post(URL, params=params, content=stream.getvalue(), headers=headers)
        table = pa.ipc.open_stream(response.content).read_all()
        assert table.schema.field("labels").type == pa.list_(pa.string())
        query = {"inputs": hidden.tolist(), **params}
        results = client.post(URL, json=query).json()["results"]
        for name in ("targets", "labels", "truncated"):
            assert table.column(name).to_pylist() == [row[name] for row in results]


@pytest.mark.parametrize("rows_at_once", [True, False])
def test_streams_have_it(client, hidden, rows_at_once):
    lines = [json.dumps({"input": row}) for row in hidden.tolist()]
    url = "/v1/models/words/score?task=top_k&k=3&threshold=0.1"
    content = "\n".join(lines) if rows_at_once else (f"{line}\n".encode() for line in lines)
    *records, _ = map(json.loads, client.post(url, content=content).text.splitlines())
    query = {"inputs": hidden.tolist(), "k": 3, "threshold": 0.1}
    results = client.post(URL, json=query).json()["results"]
    for record, result in zip(records, results, strict=True):
        assert record.pop("id") is None
        record.pop("blocks"), result.pop("blocks")
        assert record.pop("probabilities") == pytest.approx(result.pop("probabilities"))
        assert record == result


def test_the_document_has_it(client):
    document = client.get("/openapi.json").json()
    properties = document["components"]["schemas"]["TopKQuery"]["properties"]
    assert properties["threshold"]["maximum"] == 1
    names = document["paths"]["/v1/models/{name}/score"]["post"]["parameters"]
    assert "threshold" in [parameter["name"] for parameter in names]
    assert "threshold" in document["components"]["schemas"]["BatchQuery"]["properties"]
