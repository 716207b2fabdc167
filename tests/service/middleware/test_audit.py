"""Tests of audit lines: one for each admin call, allowed or refused, and none for other calls."""

import io
import json
import time

from starlette.testclient import TestClient

from hsoftmax.service import Settings, create_app
from hsoftmax.service.logging import json_log

KEYS = """
{"name": "deploy", "key": "d-s3cret", "scopes": ["admin"], "models": ["words"]}
{"name": "search", "key": "s-s3cret"}
"""
RELOAD = "/v1/models/words/reload"
ROLLOUT, ROLLBACK = "/v1/models/words/rollout", "/v1/models/words/rollback"
CALLS = [
    (RELOAD, "d-s3cret", ("deploy", "words", 200, "ok")),
    ("/v2/repository/models/words/load", "d-s3cret", ("deploy", "words", 200, "ok")),
    ("/v1/models/plain/unload", "d-s3cret", ("deploy", "plain", 403, "forbidden")),
    ("/v1/models/words/unload", "s-s3cret", ("search", "words", 403, "forbidden")),
    (RELOAD, "wr0ng-s3cret", (None, "words", 401, "unauthorized")),
    (ROLLOUT, "d-s3cret", ("deploy", "words", 200, "ok")),
    (ROLLBACK, "d-s3cret", ("deploy", "words", 422, "invalid_rollout")),
    (ROLLOUT, "s-s3cret", ("search", "words", 403, "forbidden")),
    ("/v1/models/plain/rollback", "d-s3cret", ("deploy", "plain", 403, "forbidden")),
    ("/v1/models/gone/reload", "adm1n-s3cret", ("admin", "gone", 404, "unknown_bundle")),
]


def lines_of(stream: io.BytesIO, number: int) -> list[dict]:
    """Return the lines of the log as soon as it has so many requests; a thread writes them."""
    deadline = time.monotonic() + 5
    while True:
        lines = [json.loads(line) for line in stream.getvalue().splitlines()]
        requests = [one for one in lines if one["event"] == "request"]
        if len(requests) >= number or time.monotonic() > deadline:
            return lines
        time.sleep(0.02)


def test_each_admin_call_has_one_line_without_its_key(copy, tmp_path):
    path, stream = tmp_path / "keys", io.BytesIO()
    path.write_text(KEYS)
    settings = Settings(repository=copy, threads=1, api_keys_file=path, admin_key="adm1n-s3cret",
                        state=tmp_path / "state")  # fmt: skip
    with TestClient(create_app(settings, log=json_log("info", stream))) as client:
        while client.get("/healthz/ready").status_code != 200:
            time.sleep(0.01)
        ids = []
        for url, key, _ in CALLS:
            headers = {"authorization": f"Bearer {key}"}
            if url == ROLLOUT:
                response = client.put(url, json={}, headers=headers)
            else:
                response = client.post(url, headers=headers)
            ids.append(response.headers["x-request-id"])
        client.get("/v1/models", headers={"authorization": "Bearer s-s3cret"})
        lines = lines_of(stream, len(CALLS) + 1)
    audit = [one for one in lines if one["event"] == "audit"]
    got = [(one["key"], one["model"], one["status"], one["outcome"]) for one in audit]
    assert got == [expected for _, _, expected in CALLS]
    assert [one["request_id"] for one in audit] == ids
    assert audit[0]["route"] == "/v1/models/{name}/reload"
    assert all(one["timestamp"] for one in audit)
    assert [one["method"] == "PUT" for one in audit] == [url == ROLLOUT for url, _, _ in CALLS]
    assert b"s3cret" not in stream.getvalue()


def test_an_admin_call_of_an_open_service_has_a_line_too(repository):
    stream = io.BytesIO()
    settings = Settings(repository=repository, threads=1, admin_key="root")
    with TestClient(create_app(settings, log=json_log("info", stream))) as client:
        client.post(RELOAD, headers={"authorization": "Bearer wrong"})
        lines = lines_of(stream, 1)
    (audit,) = (one for one in lines if one["event"] == "audit")
    assert (audit["key"], audit["model"], audit["outcome"]) == (None, "words", "forbidden")
