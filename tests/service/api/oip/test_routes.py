"""Metadata, health, configuration, statistics and repository under /v2, and the errors of all."""

import json
import shutil

import numpy as np
import pytest

from hsoftmax.service.inference.operations import OPERATIONS
from tests.service.conftest import HIDDEN, LABELS, TARGETS, expect_error, serving

from .requests import INFER, json_input

ADMIN = {"authorization": "Bearer admin"}
ROW = np.full((1, HIDDEN), 0.5, np.float32)


def get(client, url: str):
    response = client.get(url)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("url", ["/v2", "/v2/"])
def test_the_server_says_its_name_and_extensions(client, url):
    body = get(client, url)
    assert set(body) == {"name", "version", "extensions"}
    assert body["name"] == "hsoftmax"
    assert {"binary_tensor_data", "statistics", "model_configuration"} <= set(body["extensions"])


def test_health(client):
    assert get(client, "/v2/health/live") == {"live": True}
    assert get(client, "/v2/health/ready") == {"ready": True, "live": True}
    assert get(client, "/v2/models/words/ready") == {"name": "words", "ready": True}
    assert get(client, "/v2/models/words/versions/1/ready")["ready"]
    assert client.get("/v2/models/words/versions/9/ready").status_code == 404


def test_an_empty_repository_is_not_ready(tmp_path):
    with serving(tmp_path) as client:
        assert get(client, "/v2/health/live") == {"live": True}
        expect_error(client.get("/v2/health/ready"), 503, "not_ready", "the repository has no")


def test_the_metadata_lists_the_tensors(client):
    words = get(client, "/v2/models/words")
    assert (words["name"], words["versions"]) == ("words", ["1", "2"])
    assert words["platform"] == "hsoftmax"
    assert words["inputs"] == [
        {"name": "hidden", "datatype": "FP32", "shape": [-1, HIDDEN]},
        {"name": "target", "datatype": "INT64", "shape": [-1, -1]},
        {"name": "row", "datatype": "INT64", "shape": [-1]},
    ]
    outputs = {one["name"]: (one["datatype"], one["shape"]) for one in words["outputs"]}
    assert outputs["target_prob"] == ("FP64", [-1, -1])
    assert outputs["log_probs"] == ("FP32", [-1, TARGETS])
    assert outputs["top_k_label"] == ("BYTES", [-1, -1])
    assert outputs["exact"] == ("BOOL", [-1])
    plain = {one["name"] for one in get(client, "/v2/models/plain/versions/7")["outputs"]}
    assert set(outputs) - plain == {"top_k_label", "sample_label"}
    assert get(client, "/v2/models") == {"models": ["plain", "words"]}
    served = get(client, "/v1/models/words")
    assert words["properties"]["digest"] == served["digest"]


def test_every_listed_output_is_answered_as_listed(client):
    listed = get(client, "/v2/models/words")["outputs"]
    inputs = [json_input("hidden", ROW), json_input("target", np.array([[1, 2]]))]
    for one in listed:
        body = {"inputs": inputs, "outputs": [{"name": one["name"]}]}
        (got,) = client.post(INFER, content=json.dumps(body)).json()["outputs"]
        assert (got["name"], got["datatype"]) == (one["name"], one["datatype"])
        assert len(got["shape"]) == len(one["shape"])
        assert all(size in (-1, is_) for size, is_ in zip(one["shape"], got["shape"], strict=True))


def test_every_operation_but_that_of_pages_has_tensors_and_a_name_of_its_own_for_each():
    names = [output.name for one in OPERATIONS if one.tensors for output in one.tensors.outputs]
    assert len(names) == len(set(names))
    assert [one.name for one in OPERATIONS if one.tensors is None] == ["children"]


def test_the_configuration_is_that_of_triton(client):
    config = get(client, "/v2/models/words/config")
    assert config == get(client, "/v2/models/words/versions/2/config")
    assert config["max_batch_size"] == 0
    optional = {one["name"]: one["optional"] for one in config["input"]}
    assert optional == {"hidden": False, "target": True, "row": True}
    metadata = get(client, "/v2/models/words")
    for kind in ("input", "output"):
        assert [one["name"] for one in config[kind]] == [
            one["name"] for one in metadata[f"{kind}s"]
        ]
        assert [one["dims"] for one in config[kind]] == [
            one["shape"] for one in metadata[f"{kind}s"]
        ]
    types = {one["name"]: one["data_type"] for one in config["output"]}
    assert (types["exact"], types["top_k_label"]) == ("TYPE_BOOL", "TYPE_STRING")
    assert config["model_transaction_policy"] == {"decoupled": False}


def stats_of(client, url="/v2/models/words/versions/2/stats") -> dict:
    (one,) = get(client, url)["model_stats"]
    return one


def test_statistics_count_requests_rows_and_runs(repository):
    with serving(repository) as client:
        before = stats_of(client)
        assert (before["inference_count"], before["last_inference"]) == (0, 0)
        body = json.dumps({"inputs": [json_input("hidden", np.repeat(ROW, 3, axis=0))]})
        for _ in range(2):
            client.post(INFER, content=body)
        client.post("/v1/models/words/top_k", json={"inputs": ROW.tolist()})
        client.post("/v1/models/words/top_k", json={"inputs": ROW.tolist(), "version": "1"})
        client.post(INFER, content="{}")
        after = stats_of(client)
        versions = get(client, "/v2/models/stats")["model_stats"]
    assert after["inference_count"] == 7
    assert after["execution_count"] == 3
    assert after["last_inference"] > 1.7e12
    parts = after["inference_stats"]
    assert parts["success"]["count"] == parts["queue"]["count"] == 3
    assert parts["fail"]["count"] == 1
    spent = [parts[name]["ns"] for name in
             ("queue", "compute_input", "compute_infer", "compute_output")]  # fmt: skip
    assert parts["compute_infer"]["ns"] > 0
    assert parts["success"]["ns"] == pytest.approx(sum(spent), abs=10)
    batches = {one["batch_size"]: one["compute_infer"]["count"] for one in after["batch_stats"]}
    assert batches == {3: 2, 1: 1}
    assert [(one["name"], one["version"], one["inference_count"]) for one in versions] == [
        ("plain", "7", 0), ("words", "1", 1), ("words", "2", 7),
    ]  # fmt: skip


def test_the_index_lists_what_is_served_and_what_is_not(repository, tmp_path):
    folder = shutil.copytree(repository, tmp_path / "repository")
    (folder / "words" / "3").mkdir()
    for name in ("stats", "repository"):  # words of routes
        shutil.copytree(folder / "plain", folder / name)
    with serving(folder, admin_key="admin") as client:
        index = client.post("/v2/repository/index").json()
        states = {(one["name"], one["version"]): one["state"] for one in index}
        assert states == {
            ("plain", "7"): "READY", ("words", "1"): "READY", ("words", "2"): "READY",
            ("words", "3"): "UNAVAILABLE", ("stats", "7"): "UNAVAILABLE",
            ("repository", "7"): "UNAVAILABLE",
        }  # fmt: skip
        reasons = {one["name"]: one["reason"] for one in index}
        assert "stats/7: expected another name than stats, which is a part of" in reasons["stats"]
        ready = client.post("/v2/repository/index", content='{"ready": true}').json()
        assert {one["state"] for one in ready} == {"READY"}
        expect_error(client.get("/v2/models/stats/ready"), 503, "not_ready", "stats was refused")


def test_a_model_is_unloaded_and_loaded_with_the_admin_key(repository):
    with serving(repository, admin_key="admin") as client:
        load, unload = (f"/v2/repository/models/plain/{one}" for one in ("load", "unload"))
        expect_error(client.post(unload), 401, "unauthorized")
        expect_error(client.post(load, headers={"authorization": "Bearer x"}), 403, "forbidden")
        body = '{"parameters":{"unload_dependents":false}}'
        response = client.post(unload, content=body, headers=ADMIN)
        assert (response.status_code, response.content) == (200, b"")
        ready = client.get("/v2/models/plain/ready")
        expect_error(ready, 503, "not_ready", "not ready: plain was unloaded")
        (entry,) = (one for one in client.post("/v2/repository/index").json()
                    if one["name"] == "plain")  # fmt: skip
        assert (entry["state"], entry["reason"]) == ("UNAVAILABLE", "unloaded")
        assert client.post(load, content="{}", headers=ADMIN).status_code == 200
        assert get(client, "/v2/models/plain/ready")["ready"]
        config = '{"parameters":{"config":"{}"}}'
        response = client.post(load, content=config, headers=ADMIN)
        expect_error(response, 422, "invalid_query", "parameters: expected none")
        nothing = client.post("/v2/repository/models/nonesuch/load", headers=ADMIN)
        expect_error(nothing, 404, "unknown_bundle")


@pytest.mark.parametrize(
    ("method", "url", "status", "code"),
    [
        ("GET", "/v2/nowhere", 404, "not_found"),
        ("GET", "/v2/models/words%2F..%2Fplain/config", 404, "not_found"),
        ("GET", "/v2/models/nonesuch", 404, "unknown_bundle"),
        ("GET", "/v2/models/nonesuch/config", 404, "unknown_bundle"),
        ("GET", "/v2/models/nonesuch/ready", 404, "unknown_bundle"),
        ("GET", "/v2/models/words/versions/x", 404, "unknown_version"),
        ("POST", "/v2/models/nonesuch/infer", 404, "unknown_bundle"),
        ("GET", INFER, 405, "method_not_allowed"),
        ("PUT", INFER, 405, "method_not_allowed"),
        ("POST", "/v2", 405, "method_not_allowed"),
        ("GET", "/v2/repository/index", 405, "method_not_allowed"),
        ("POST", "/v2/repository/models/words/load", 403, "forbidden"),
    ],
)
def test_every_error_has_one_shape(client, method, url, status, code):
    expect_error(client.request(method, url), status, code)


def test_without_a_key_all_but_health_is_closed(repository):
    with serving(repository, api_keys="secret") as client:
        for url in ("/v2", "/v2/models/words", "/v2/models/words/ready", "/v2/models/stats"):
            expect_error(client.get(url), 401, "unauthorized")
        expect_error(client.post(INFER), 401, "unauthorized")
        assert get(client, "/v2/health/live") == {"live": True}
        assert get(client, "/v2/health/ready")["ready"]


def test_a_body_that_is_too_large_has_the_same_error(repository):
    with serving(repository, max_body_bytes=100) as client:
        expect_error(client.post(INFER, content=b" " * 101), 413, "too_large")


def test_the_log_and_the_metrics_have_the_route(client):
    client.post(INFER, content=json.dumps({"inputs": [json_input("hidden", ROW)]}))
    page = client.get("/metrics").text
    route = 'model="words",route="/v2/models/{name}/infer"'
    assert f'hsoftmax_requests_total{{code="ok",{route},status="200",version="2"}}' in page
    assert f"hsoftmax_rows_total{{{route}}}" in page


def test_labels_are_answered(client):
    body = {"inputs": [json_input("hidden", ROW)], "parameters": {"k": TARGETS},
            "outputs": [{"name": "top_k_label"}]}  # fmt: skip
    (labels,) = client.post(INFER, content=json.dumps(body)).json()["outputs"]
    assert sorted(labels["data"]) == sorted(LABELS)
