"""Tests of named keys: their scopes and models over HTTP, their file, and the name in the log."""

import hashlib
import io
import json
import re
import time

import pytest
from starlette.testclient import TestClient

from hsoftmax.service import Settings, StartError, create_app
from hsoftmax.service.access.key_entries import parse_lines
from hsoftmax.service.access.key_file import KeyFile
from hsoftmax.service.context import context_of
from hsoftmax.service.logging import json_log
from hsoftmax.service.middleware.authentication import required_scope
from tests.service.conftest import HIDDEN, expect_error, serving

QUERY = {"inputs": [[0.5] * HIDDEN], "targets": [1]}
TENSORS = {"inputs": [{"name": "hidden", "datatype": "FP32", "shape": [1, HIDDEN],
                       "data": [0.5] * HIDDEN}],
           "outputs": [{"name": "log_probs"}]}  # fmt: skip
JOB = {"endpoint": "/v1/models/plain/score", "completion_window": "24h", "input_file_id": "file-x"}
HASH = hashlib.sha256(b"hashed").hexdigest()
KEYS = [
    "unnamed",
    "# a comment",
    '{"name": "reader", "key": "r", "models": ["wor*"]}',
    f'{{"name": "reader", "sha256": "{HASH}", "models": ["wor*"]}}',
    '{"name": "batcher", "key": "b", "scopes": ["batch"], "models": ["words"]}',
    '{"name": "deployer", "key": "d", "scopes": ["admin"], "models": ["words"]}',
]


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def closed(repository, tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    (folder / "keys").write_text("\n".join(KEYS))
    with serving(repository, api_keys_file=folder / "keys", state=folder / "state") as client:
        yield client


SCOPE = "key '{}': expected the scope {}, got {}"
MODEL = "key '{}': expected one for the model '{}', got one for {}"
REFUSED = [
    ("b", "POST", "/v1/models/words/top_k", QUERY, SCOPE.format("batcher", "read", "batch")),
    ("b", "GET", "/metrics", None, SCOPE.format("batcher", "read", "batch")),
    ("b", "GET", "/nowhere", None, SCOPE.format("batcher", "read", "batch")),
    ("r", "GET", "/v1/batches", None, SCOPE.format("reader", "batch", "read")),
    ("r", "POST", "/v1/models/words/unload", None, SCOPE.format("reader", "admin", "read")),
    ("unnamed", "POST", "/v2/repository/models/words/load", None,
     SCOPE.format("default", "admin", "read, batch")),
    ("d", "GET", "/v1/models", None, SCOPE.format("deployer", "read", "admin")),
    ("r", "POST", "/v1/models/plain/probabilities", QUERY, MODEL.format("reader", "plain", "wor*")),
    ("r", "POST", "/v1/models/plain/score?task=log_probs", None,
     MODEL.format("reader", "plain", "wor*")),
    ("r", "GET", "/v1/models/plain", None, MODEL.format("reader", "plain", "wor*")),
    ("r", "GET", "/v1/models/plain/labels", None, MODEL.format("reader", "plain", "wor*")),
    ("r", "POST", "/v1/models/plain:predict", {"instances": [[0.5] * HIDDEN]},
     MODEL.format("reader", "plain", "wor*")),
    ("r", "POST", "/v2/models/plain/infer", TENSORS, MODEL.format("reader", "plain", "wor*")),
    ("r", "GET", "/v2/models/plain/stats", None, MODEL.format("reader", "plain", "wor*")),
    ("r", "GET", "/v1/models/plain/rollout", None, MODEL.format("reader", "plain", "wor*")),
    ("r", "PUT", "/v1/models/words/rollout", {}, SCOPE.format("reader", "admin", "read")),
    ("d", "PUT", "/v1/models/plain/rollout", {}, MODEL.format("deployer", "plain", "words")),
    ("d", "POST", "/v1/models/plain/rollback", None, MODEL.format("deployer", "plain", "words")),
    ("b", "POST", "/v1/batches", JOB, MODEL.format("batcher", "plain", "words")),
    ("d", "POST", "/v1/models/plain/unload", None, MODEL.format("deployer", "plain", "words")),
]  # fmt: skip


@pytest.mark.parametrize(("key", "method", "path", "body", "sentence"), REFUSED)
def test_a_refusal_names_what_the_key_lacks(closed, key, method, path, body, sentence):
    response = closed.request(method, path, json=body, headers=bearer(key))
    expect_error(response, 403, "forbidden", sentence)


@pytest.mark.parametrize(
    ("key", "method", "path", "body"),
    [
        ("r", "POST", "/v1/models/words/probabilities", QUERY),
        ("hashed", "POST", "/v1/models/words/probabilities", QUERY),
        ("r", "POST", "/v2/models/words/infer", TENSORS),
        ("b", "GET", "/v1/batches", None),
        ("d", "POST", "/v1/models/words/reload", None),
        ("r", "GET", "/v1/models/words/rollout", None),
        ("d", "PUT", "/v1/models/words/rollout", {}),
        ("unnamed", "GET", "/v1/files", None),
        ("unnamed", "POST", "/v1/models/plain/probabilities", QUERY),
    ],
)
def test_a_key_opens_its_scopes_and_models(closed, key, method, path, body):
    response = closed.request(method, path, json=body, headers=bearer(key))
    assert response.status_code == 200, response.text


def test_lists_have_only_the_models_of_the_key(closed):
    index = closed.post("/v2/repository/index", headers=bearer("r")).json()
    assert {one["name"] for one in index} == {"words"}
    stats = closed.get("/v2/models/stats", headers=bearer("r")).json()["model_stats"]
    assert {one["name"] for one in stats} == {"words"}
    assert closed.get("/v2/models", headers=bearer("r")).json() == {"models": ["words"]}
    listed = closed.get("/v1/models", headers=bearer("r")).json()
    assert [one["name"] for one in listed["models"]] == ["words"]
    assert [one["id"] for one in listed["data"]] == ["words"]


def test_every_admin_route_needs_the_scope_admin(client):
    """A route that is tagged `admin` and is not in the pattern of paths would need `read` too."""
    found = 0
    for path, methods in client.app.api.openapi()["paths"].items():
        for method, operation in methods.items():
            if "admin" in operation.get("tags", ()) and method != "get":
                found += 1
                path = re.sub(r"\{[^}]+\}", "x", path)
                assert required_scope(method.upper(), path) == "admin", path
    assert found >= 6


def test_log_and_metrics_have_the_name_and_never_the_key(repository, tmp_path):
    path, stream = tmp_path / "keys", io.BytesIO()
    path.write_text('{"name": "search", "key": "s3cret"}\nplain-s3cret')
    app = create_app(
        Settings(repository=repository, api_keys_file=path, admin_key="adm1n-s3cret"),
        log=json_log("debug", stream),
    )
    with TestClient(app) as client:
        for key in ("s3cret", "plain-s3cret", "adm1n-s3cret", "wr0ng"):
            client.get("/v1/models", headers=bearer(key))
        page = client.get("/metrics", headers=bearer("adm1n-s3cret")).text
        client.get("/healthz/live")
        said = page + str(context_of(app))
    deadline = time.monotonic() + 5
    while len(lines := requests_in(stream)) < 6 and time.monotonic() < deadline:
        time.sleep(0.02)  # the log is written by a thread
    named = [one.get("key") for one in lines]
    assert named == ["search", "default", "admin", None, "admin", None]
    assert 'hsoftmax_key_requests_total{key="search",status="200"} 1.0' in page
    assert "s3cret" not in said + stream.getvalue().decode()


def requests_in(stream: io.BytesIO) -> list[dict]:
    lines = [json.loads(line) for line in stream.getvalue().decode().splitlines()]
    return [one for one in lines if one["event"] == "request"]


ODD = [
    ('{"name": "a"}', "line 1: expected key or sha256, got none"),
    (
        f'{{"name": "a", "key": "x", "sha256": "{HASH}"}}',
        "line 1: expected key or sha256, got",
    ),
    ('{"name": "a", "key": " "}', "line 1: key: expected a text, got a blank one"),
    ('{"name": "a", "key": "x", "scopes": ["reed"]}', "line 1: scopes row 0: invalid enum value"),
    (
        '{"name": "a", "key": "x", "scope": []}',
        "line 1: unknown field 'scope': expected name, ",
    ),
    ('{"name": "admin", "key": "x"}', "line 1: name: expected another than default and admin"),
    ('{"name": "a b", "key": "x"}', "line 1: name: expected `str` matching regex"),
    (
        '{"name": "a", "key": "x", "rows_per_second": 0}',
        "line 1: rows_per_second: expected",
    ),
    ("\n{", "line 2: expected a JSON object in one line"),
    ("sha256:12", "line 1: api keys: expected 64 hexadecimal digits"),
    ('x\n{"name": "a", "key": "x"}', "line 2: expected a key of its own, got that of an earlier"),
    (
        '{"name": "a", "key": "x"}\n{"name": "a", "key": "y", "models": []}',
        "line 2: expected the scopes, models and limits of the earlier key 'a', got others",
    ),
]


@pytest.mark.parametrize(("text", "sentence"), ODD)
def test_a_broken_entry_is_named_by_its_line(text, sentence):
    with pytest.raises(StartError, match="^" + re.escape(f"api_keys_file {sentence}")):
        parse_lines(text.split("\n"))


def test_a_broken_file_keeps_the_old_keys_with_one_line_for_each_reason(tmp_path, monkeypatch):
    monkeypatch.setattr("hsoftmax.service.access.key_file._CHECK_INTERVAL_S", 0.0)
    path, stream = tmp_path / "keys", io.BytesIO()
    path.write_text(KEYS[2])
    keys = KeyFile(path, json_log("info", stream))
    before = keys.keys()
    for text in ('{"name": "a"}', '{"name": 1}'):
        path.write_text(text)
        assert keys.keys() is before
        assert keys.keys() is before
    path.write_text("new")
    assert {key.name for key in keys.keys().values()} == {"default"}
    lines = [json.loads(line) for line in stream.getvalue().decode().splitlines()]
    assert [one["event"] for one in lines] == [
        "api_keys_unreadable", "api_keys_unreadable", "api_keys_read",
    ]  # fmt: skip
