"""Routes under the names of other platforms: they lead to the routes that are there."""

import gzip
import json
import shutil

import numpy as np
import pytest

from hsoftmax.service.settings import Settings
from tests.service.conftest import HIDDEN, expect_error, serving

from .oip.requests import json_input

ROWS = [[0.5] * HIDDEN, [-0.25] * HIDDEN]
PREDICT = "/v1/models/words:predict"
TARGET = {"x-amzn-sagemaker-target-model": "words"}


@pytest.fixture
def top_k(client):
    query = {"inputs": ROWS, "k": 3}
    return client.post("/v1/models/words/top_k", json=query).json()["results"]


@pytest.mark.parametrize("url", ["/health", "/ping"])
def test_probes_say_if_the_service_is_ready(client, tmp_path, url):
    assert client.get(url).json() == client.get("/healthz/ready").json()
    with serving(tmp_path, api_keys="secret") as empty:
        expect_error(empty.get(url), 503, "not_ready")


def test_the_service_says_its_version_and_its_bundles(client):
    info = client.get("/info").json()
    assert (info["name"], info["models"]) == ("hsoftmax", ["plain", "words"])
    assert client.get("/version").json() == {"version": info["version"]}


def test_predict_is_top_k(client, top_k):
    body = {"instances": ROWS, "parameters": {"k": 3}}
    answer = client.post(PREDICT, json=body)
    assert answer.json() == {"predictions": top_k, "model": "words", "version": "2"}
    packed = gzip.compress(json.dumps(body).encode())
    headers = {"content-encoding": "gzip"}
    assert client.post(PREDICT, content=packed, headers=headers).json() == answer.json()


@pytest.mark.parametrize(
    ("body", "status", "code", "sentence"),
    [
        ("{", 400, "invalid_json", "body: expected JSON"),
        ("{}", 422, "invalid_query", "instances: expected a list of rows, got none"),
        ('{"instances": [[1]]}', 422, "invalid_query", "inputs row 0: expected 8 numbers, got 1"),
        (
            '{"instances": [{"a": 1}, {"b": 1}]}',
            422,
            "invalid_query",
            "instances row 1: expected a",
        ),
        ('{"instances": [{"a": 1}]}', 422, "invalid_query", "words has no encoder"),
        ('{"instances": [], "parameters": {"kk": 1}}', 422, "invalid_query", "did you mean k?"),
        ("[" * 100_000, 413, "too_large", "lists"),
    ],
)
def test_a_wrong_prediction_has_one_error(client, body, status, code, sentence):
    expect_error(client.post(PREDICT, content=body), status, code, sentence)


def test_predict_of_another_bundle_is_not_found(client):
    expect_error(client.post("/v1/models/x:predict", content="{}"), 404, "unknown_bundle")
    assert client.get(PREDICT).status_code == 404  # a bundle `words:predict` is not served


def test_sagemaker_asks_the_only_bundle_or_names_one(client, repository, tmp_path, top_k):
    body = {"instances": ROWS, "parameters": {"k": 3}}
    nameless = client.post("/invocations", json=body)
    expect_error(nameless, 400, "unreadable_body", "x-amzn-sagemaker-target-model: expected this")
    named = client.post("/invocations", json=body, headers=TARGET)
    assert named.json()["predictions"] == top_k
    shutil.copytree(repository / "words", tmp_path / "words")
    with serving(tmp_path) as alone:
        assert alone.post("/invocations", json=body).json() == named.json()
        tensors = {"inputs": [json_input("hidden", np.array(ROWS, np.float32))]}
        answer = alone.post("/invocations", json=tensors)
        assert "model_name" in answer.json(), answer.text


def test_vertex_names_its_routes_and_its_port(monkeypatch, repository, tmp_path, top_k):
    monkeypatch.setenv("AIP_HTTP_PORT", "7080")
    monkeypatch.setenv("AIP_HEALTH_ROUTE", "/vertex/health")
    monkeypatch.setenv("AIP_PREDICT_ROUTE", "/v1/endpoints/1/deployedModels/2:predict")
    settings = Settings(repository=repository)
    assert settings.port == 7080
    assert Settings(repository=repository, port=1).port == 1
    shutil.copytree(repository / "words", tmp_path / "words")
    with serving(tmp_path, api_keys="secret") as client:
        assert client.get(settings.health_route).json()["models"] == ["words"]
        body = {"instances": ROWS, "parameters": {"k": 3}}
        expect_error(client.post(settings.predict_route, json=body), 401, "unauthorized")
        headers = {"authorization": "Bearer secret"}
        answer = client.post(settings.predict_route, json=body, headers=headers)
        assert answer.json()["predictions"] == top_k
    monkeypatch.setenv("HSOFTMAX_PORT", "9000")
    assert Settings(repository=repository).port == 9000


@pytest.mark.parametrize("route", ["predict", "", "/a b", "/{name}", "//x"])
def test_a_route_is_a_path(repository, route):
    with pytest.raises(ValueError, match="predict_route"):
        Settings(repository=repository, predict_route=route)
