"""GET /v1/models/{name}/labels: searches labels, and looks up labels and targets."""

import json

import numpy as np
import pytest

from hsoftmax import exporter
from hsoftmax.scoring import label_search
from tests.exporter.sources.fasttext_files import FastTextFile
from tests.service.conftest import HIDDEN, LABELS, TARGETS, expect_error, serving

URL = "/v1/models/words/labels"


def get(client, **params) -> dict:
    response = client.get(URL, params=params)
    assert response.status_code == 200, response.text
    return response.json()


def test_a_page_has_targets_and_labels_in_order(client):
    assert get(client) == {
        "model": "words",
        "version": "2",
        "targets": list(range(TARGETS)),
        "labels": list(LABELS),
        "next": None,
    }


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"search": "toil"}, ["étoile"]),
        ({"search": "d1"}, ["word1"]),
        ({"prefix": "é"}, ["étoile"]),
        ({"prefix": "ord"}, []),
        ({"prefix": "word", "search": "9"}, ["word9"]),
        ({"search": "Word"}, []),
        ({"start": 9}, ["word9", "étoile"]),
        ({"start": 10**17}, []),
    ],
)
def test_search_and_prefix_choose_labels(client, params, expected):
    got = get(client, **params)
    assert got["labels"] == expected
    assert [LABELS[target] for target in got["targets"]] == expected
    assert got["next"] is None


@pytest.mark.parametrize("slice_labels", [1, 3, 2**12])
@pytest.mark.parametrize("limit", [1, 3, 9, 10, 11, 12])
@pytest.mark.parametrize("params", [{}, {"search": "o"}, {"prefix": "word"}])
def test_pages_have_each_match_once(client, monkeypatch, slice_labels, limit, params):
    monkeypatch.setattr(label_search, "_SLICE_LABELS", slice_labels)
    found, start, pages = [], 0, 0
    while start is not None:
        page = get(client, start=start, limit=limit, **params)
        assert len(page["labels"]) <= limit
        found, start, pages = found + page["labels"], page["next"], pages + 1
    expected = [label for label in LABELS if label.startswith(params.get("prefix", ""))]
    assert found == expected
    assert pages == -(-len(expected) // limit)


def test_ids_give_labels_in_their_order(client):
    got = get(client, ids="10,3,3")
    assert (got["targets"], got["labels"]) == ([10, 3, 3], ["étoile", "word3", "word3"])
    assert get(client, ids=["10", "3,3"]) == got


def test_labels_give_targets_in_their_order(client):
    got = get(client, label=["étoile", "word3"])
    assert (got["targets"], got["labels"], got["next"]) == ([10, 3], ["étoile", "word3"], None)


def test_a_version_is_chosen(client):
    assert get(client, version="1", ids="1")["version"] == "1"
    response = client.get(URL, params={"version": "9"})
    expect_error(response, 404, "unknown_version")


@pytest.mark.parametrize(
    ("params", "code", "sentence"),
    [
        ({"ids": "11"}, "target_out_of_range", "ids: expected 0 to 10, got 11"),
        ({"ids": "-1"}, "target_out_of_range", "ids: expected 0 to 10, got -1"),
        ({"ids": "1,x"}, "invalid_query", "ids: expected integers with commas between them, got"),
        ({"ids": "1,"}, "invalid_query", "ids: expected integers with commas between them, got ''"),
        ({"ids": "1_0"}, "invalid_query", "ids: expected integers"),
        ({"label": "nope"}, "unknown_label", "label: no label 'nope' in words"),
        ({"ids": "1", "search": "w"}, "invalid_query", "ids: expected no search beside it"),
        ({"label": "word1", "limit": 5}, "invalid_query", "label: expected no limit beside it"),
        ({"limit": 0}, "invalid_query", "limit: expected greater than or equal to 1, got '0'"),
        ({"limit": 10_001}, "invalid_query", "limit: expected less than or equal to 10000"),
        ({"limit": "1_0"}, "invalid_query", "limit: expected a valid integer, got '1_0'"),
        ({"start": -1}, "invalid_query", "start: expected greater than or equal to 0, got '-1'"),
        ({"serch": "w"}, "invalid_query", "unknown parameter 'serch': expected search, prefix"),
        ({"serch": "w"}, "invalid_query", ": did you mean search?"),
        ({"search": ["w", "o"]}, "invalid_query", "search: expected once, got it again"),
    ],
)
def test_what_cannot_be_is_refused(client, params, code, sentence):
    expect_error(client.get(URL, params=params), 422, code, sentence)


def test_a_bundle_without_labels_is_refused(client):
    response = client.get("/v1/models/plain/labels")
    expect_error(response, 422, "unknown_label", "expected a bundle with labels, plain has none")
    expect_error(client.get("/v1/models/nope/labels"), 404, "unknown_bundle")
    expect_error(client.post(URL, json={}), 405, "method_not_allowed")


def test_it_needs_a_key_where_other_routes_do(repository, monkeypatch):
    monkeypatch.setenv("HSOFTMAX_API_KEYS", "secret")
    with serving(repository) as client:
        expect_error(client.get(URL), 401, "unauthorized")
        headers = {"authorization": "Bearer secret"}
        assert client.get(URL, headers=headers).status_code == 200


def test_log_and_metrics_name_the_route(client):
    response = client.get(URL)
    assert response.headers["x-hsoftmax-digest"]
    assert 'route="/v1/models/{name}/labels"' in client.get("/metrics").text


def test_the_document_has_the_route(client):
    operation = client.get("/openapi.json").json()["paths"]["/v1/models/{name}/labels"]["get"]
    names = {parameter["name"] for parameter in operation["parameters"]}
    assert names == {"name", "search", "prefix", "start", "limit", "ids", "label", "version"}
    assert {"200", "404", "422"} <= operation["responses"].keys()


@pytest.fixture(scope="module")
def fasttext_client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fasttext")
    labels = {"__label__fr": 5, "__label__en": 4}
    (folder / "model.bin").write_bytes(FastTextFile(labels=labels).content())
    exporter.export_file(folder / "model.bin", folder / "repository" / "lid" / "1", source="auto")
    with serving(folder / "repository") as client:
        yield client


def test_fasttexts_prefix_is_understood_wherever_a_label_is(fasttext_client):
    describe = fasttext_client.get("/v1/models/lid").json()
    assert describe["label_prefix"] == "__label__"
    url, row = "/v1/models/lid", np.full(describe["hidden_size"], 0.1).tolist()
    got = fasttext_client.get(f"{url}/labels", params={"label": ["__label__en", "en"]}).json()
    assert got["labels"] == ["en", "en"]
    assert len(set(got["targets"])) == 1
    got = fasttext_client.get(f"{url}/labels", params={"prefix": "__label__e"}).json()
    assert got["labels"] == ["en"]
    query = {"inputs": [row], "targets": [["__label__en", "en"]]}
    (pair,) = fasttext_client.post(f"{url}/probabilities", json=query).json()["probabilities"]
    assert pair[0] == pair[1]
    rows = [json.dumps({"input": row, "target": label}) for label in ("__label__fr", "fr")]
    records = fasttext_client.post(f"{url}/score", content="\n".join(rows)).text.splitlines()
    one, other, _ = map(json.loads, records)
    assert one["log_prob"] == other["log_prob"]


def test_only_fasttexts_labels_have_a_prefix(client):
    query = {"inputs": [[0.1] * HIDDEN], "targets": ["__label__word1"]}
    response = client.post("/v1/models/words/probabilities", json=query)
    expect_error(response, 422, "unknown_label", "no label '__label__word1' in words")
