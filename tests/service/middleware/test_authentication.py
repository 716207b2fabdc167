"""Tests of API keys: every path but health needs one, rotation without restart, no key in logs."""

import hashlib
import io
import json
import os
import re
import ssl
import subprocess
import time
from functools import partial

import pytest
from starlette.testclient import TestClient

from hsoftmax.service import Settings, StartError, create_app, serve
from hsoftmax.service.access.key_entries import parse_plain
from hsoftmax.service.access.key_file import KeyFile
from hsoftmax.service.context import context_of
from hsoftmax.service.logging import json_log
from tests.service.conftest import HIDDEN, expect_error, serving

QUERY = {"inputs": [[0.5] * HIDDEN], "targets": [1]}
URL = "/v1/models/words/probabilities"
HASHED = "sha256:" + hashlib.sha256(b"second").hexdigest()


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def closed(repository):
    keys = {"api_keys": f"first, {HASHED}, café", "admin_key": "root"}
    with serving(repository, **keys) as client:
        while client.get("/healthz/ready").status_code != 200:
            pass
        yield client


@pytest.mark.parametrize("key", ["first", "second", "café", "root"])
def test_a_known_key_opens(closed, key):
    headers = {"authorization": f"Bearer {key}".encode()}
    assert closed.post(URL, json=QUERY, headers=headers).status_code == 200
    assert closed.get("/metrics", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("headers", "got"),
    [
        ({}, "none"),
        (bearer(""), "none"),
        (bearer("third"), "one that is not known"),
        (bearer("firs"), "one that is not known"),
        (bearer(HASHED), "one that is not known"),
        ({"authorization": "Basic first"}, "none"),
        ({"authorization": "first"}, "none"),
        ({"x-api-key": "first"}, "none"),
    ],
    ids=str,
)
def test_anything_else_does_not(closed, headers, got):
    response = closed.post(URL, json=QUERY, headers=headers)
    expect_error(response, 401, "unauthorized")
    assert response.json()["error"] == f"key: expected `Authorization: Bearer <key>`, got {got}"
    assert response.headers["www-authenticate"] == "Bearer"


PUBLIC = {
    "/healthz/live",
    "/healthz/ready",
    "/v2/health/live",
    "/v2/health/ready",
    "/health",
    "/ping",
    "/",
    "/page/app.js",
}


def test_everything_but_health_and_the_page_is_closed(closed):
    routes = [*closed.app.api.openapi()["paths"], "/openapi.json", "/", "/page/app.js", "/docs"]
    for path in [*routes, "/nowhere", "/healthz/", "/healthz/live/x", "/x/healthz/live"]:
        response = closed.get(path.replace("{name}", "words"))
        expected = 200 if path in PUBLIC else 401
        assert response.status_code == expected, path


def test_without_keys_everything_is_open_and_admin_routes_are_shut(client):
    assert client.get("/v1/models").status_code == 200
    for what in ("reload", "unload"):
        response = client.post(f"/v1/models/words/{what}", headers=bearer("root"))
        expect_error(response, 403, "forbidden", "this service has no admin key")


def test_an_admin_key_alone_closes_only_admin_routes(repository):
    with serving(repository, admin_key="root") as client:
        assert client.post(URL, json=QUERY).status_code == 200
        url = "/v1/models/words/reload"
        expect_error(client.post(url), 401, "unauthorized")
        expect_error(client.post(url, headers=bearer("x")), 403, "forbidden", "the admin key")
        assert client.post(url, headers=bearer("root")).status_code == 200


def test_an_api_key_is_no_admin_key(closed):
    response = closed.post("/v1/models/words/unload", headers=bearer("first"))
    expect_error(response, 403, "forbidden", "expected the scope admin, got read, batch")


def test_keys_from_a_file_are_rotated_without_a_restart(repository, tmp_path, monkeypatch):
    monkeypatch.setattr("hsoftmax.service.access.key_file._CHECK_INTERVAL_S", 0.0)
    path = tmp_path / "keys"
    path.write_text(f"# ours\n\nold\n{HASHED}\n")
    with serving(repository, api_keys_file=path) as client:
        ask = lambda key: client.get("/v1/models", headers=bearer(key)).status_code  # noqa: E731
        assert (ask("old"), ask("second"), ask("new"), ask("# ours")) == (200, 200, 401, 401)
        (tmp_path / "next").write_text("new\n")
        os.replace(tmp_path / "next", path)
        assert (ask("old"), ask("second"), ask("new")) == (401, 401, 200)
        path.unlink()
        assert ask("new") == 200  # the old keys stay valid until the file exists again
        path.write_text("")
        assert ask("new") == 401  # no key


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("first", ["first", "sha256:" + hashlib.sha256(b"first").hexdigest()])
def test_a_byte_order_mark_disables_no_key(repository, tmp_path, first, end):
    path = tmp_path / "keys"
    path.write_bytes(end.join(["\ufeff" + first, "second", ""]).encode())
    with serving(repository, api_keys_file=path) as client:
        for key in ("first", "second"):
            assert client.get("/v1/models", headers=bearer(key)).status_code == 200
    settings = {"api_keys": "\ufefffirst,second", "admin_key": "\ufeffroot"}
    with serving(repository, **settings) as client:
        for key in ("first", "second", "root"):
            assert client.get("/v1/models", headers=bearer(key)).status_code == 200


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("first\n".encode("utf-16"), "expected UTF-8 text, got UTF-16: save it as UTF-8"),
        ("café\n".encode("latin-1"), "expected UTF-8 text, got byte 3 that is not"),
        (b"first\rsecond\r", r"expected lines that end with \n or \r\n, got \r alone in line 1"),
    ],
)
def test_a_key_file_that_is_no_text_is_refused_with_the_reason(
    repository, tmp_path, monkeypatch, content, sentence
):
    monkeypatch.setattr("hsoftmax.service.access.key_file._CHECK_INTERVAL_S", 0.0)
    path, log = tmp_path / "keys", io.BytesIO()
    path.write_bytes(content)
    with pytest.raises(StartError, match=re.escape(f"api_keys_file: {sentence}")):
        create_app(Settings(repository=repository, api_keys_file=path))
    path.write_bytes(b"old\n")
    keys = KeyFile(path, json_log("info", log))
    path.write_bytes(content)
    assert keys.keys() == parse_plain(["old"])  # the old keys stay valid
    assert f"api_keys_file: {sentence}" in json.loads(log.getvalue())["reason"]


def test_a_file_is_not_looked_at_more_than_once_a_second(tmp_path):
    path = tmp_path / "keys"
    path.write_text("old")
    keys = KeyFile(path, json_log("error"))
    path.write_text("another")
    assert keys.keys() == parse_plain(["old"])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"api_keys": "sha256:123"}, "expected 64 hexadecimal digits"),
        ({"api_keys_file": "/nonexistent/keys"}, "api_keys_file: cannot be read: No such file"),
    ],
)
def test_keys_that_cannot_be_read_are_an_error_at_start(repository, settings, sentence):
    with pytest.raises(StartError, match=sentence):
        create_app(Settings(repository=repository, **settings))


def test_an_empty_list_of_keys_admits_no_key(repository):
    with serving(repository, api_keys=" , ") as client:
        assert client.get("/v1/models", headers=bearer(" ")).status_code == 401


def test_keys_are_never_logged_or_sent(repository):
    stream = io.BytesIO()
    settings = Settings(repository=repository, api_keys="s3cret", admin_key="t0psecret")
    app = create_app(settings, log=json_log("debug", stream))
    with TestClient(app) as client:
        for key in ("s3cret", "t0psecret", "wr0ng"):
            response = client.get("/v1/models", headers=bearer(key))
            assert key not in response.text
        context_of(app).log.info("settings", settings=settings)
        said = stream.getvalue().decode() + repr(settings) + str(context_of(app))
    for key in ("s3cret", "t0psecret", "wr0ng"):
        assert key not in said


def test_other_origins_are_not_let_in(client):
    headers = {"origin": "https://elsewhere.example", "access-control-request-method": "POST"}
    for response in (
        client.get("/v1/models", headers=headers),
        client.options(URL, headers=headers),
    ):
        assert not [name for name in response.headers if name.startswith("access-control")]


def make_certificate(certificate, key):
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    subprocess.run([*make, "-keyout", key, "-out", certificate], check=True, capture_output=True)


def test_a_renewed_certificate_needs_no_restart(start, tmp_path):
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    make_certificate(certificate, key)
    server = start(tls_certfile=certificate, tls_keyfile=key)
    assert server.url.scheme == "https"
    assert server.get("/healthz/live") == (200, {"status": "live"})
    shown = partial(ssl.get_server_certificate, (server.url.hostname, server.url.port))
    first = certificate.read_text()
    assert shown() == first
    renewed = tmp_path / "renewed.pem", tmp_path / "renewed_key.pem"
    make_certificate(*renewed)
    old = server.connect()
    old.request("GET", "/healthz/live")
    old.getresponse().read()
    renewed[0].replace(certificate)  # its key is not there yet
    assert server.until("certificate_unreadable")["reason"] == "KEY_VALUES_MISMATCH"
    assert shown() == first
    renewed[1].replace(key)
    server.until("certificate_read")
    deadline = time.monotonic() + 5  # the line is written just before the certificate is in use
    while shown() == first:
        assert time.monotonic() < deadline
    assert shown() == certificate.read_text()
    old.request("GET", "/healthz/live")  # an open connection goes on
    assert old.getresponse().status == 200
    assert server.read_log().count("certificate_unreadable") == 1


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"tls_certfile": "/nonexistent.pem"}, "tls: expected a certificate and its key, got"),
        ({"tls_keyfile": "/nonexistent.pem"}, "tls_keyfile: expected tls_certfile beside it"),
    ],
)
def test_tls_that_cannot_be_is_an_error_at_start(repository, settings, sentence):
    with pytest.raises(StartError, match=sentence):
        serve(Settings(repository=repository, port=0, **settings))
