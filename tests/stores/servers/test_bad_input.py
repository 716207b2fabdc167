"""Wrong addresses, missing credentials and damaged versions: one line each, the old goes on."""

import subprocess
import sys

import pytest

from hsoftmax.stores.objects import ObjectStore
from hsoftmax.stores.url import parse_url

from .conftest import ask_steadily, serve, served, until, upload

pytestmark = pytest.mark.stores


def serve_and_fail(url: str, cache) -> str:
    """Run `hsoftmax serve`, which ends at once; return its one line."""
    done = subprocess.run(
        [sys.executable, "-m", "hsoftmax", "serve", url, "--port", "0", "--store-cache", cache],
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("url", "sentence"),
    [("s4://bucket/models", "did you mean s3://?"),
     ("s3://buckett/models", "s3://buckett/models: expected it in the store, got none"),
     ("s3://test:SECRET@bucket/models", "credentials come from the environment")],
)  # fmt: skip
def test_a_wrong_address_is_one_line(s3, tmp_path, url, sentence):
    error = serve_and_fail(url, tmp_path / "cache")
    assert sentence in error
    assert "SECRET" not in error


def test_missing_credentials_are_one_line(server, tmp_path, monkeypatch):
    for name in server.environment(0):
        if "KEY" in name:
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert "expected credentials" in serve_and_fail(server.url, tmp_path / "cache")


def test_wrong_credentials_are_one_line(azure, tmp_path, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0")
    error = serve_and_fail(azure.url, tmp_path / "cache")
    assert "expected" in error
    assert "credentials" in error
    assert "c2VjcmV0" not in error


def test_a_bucket_without_bundles_is_one_line_and_is_served_once_it_has_some(
    server, bundles, start, tmp_path
):
    service = start(
        server.url, waits_for="store_empty", store_cache=tmp_path / "cache", store_interval=0.2
    )
    assert service.get("/healthz/ready")[0] == 503
    upload(bundles(1), f"{server.url}/words/1")
    service.until("bundle_served")
    until(lambda: service.get("/healthz/ready")[0] == 200)
    assert service.read_log().count('"store_empty"') == 1


def test_a_damaged_version_is_one_line_and_the_old_goes_on(server, bundles, start, tmp_path):
    upload(bundles(1), f"{server.url}/words/1")
    service = serve(start, server.url, tmp_path / "cache")
    client = ask_steadily(service, range(1, 5))
    try:
        upload(bundles(2), f"{server.url}/words/2", without=("bundle.json",))
        upload(bundles(3), f"{server.url}/words/3", without=("weights.bin",))
        assert "expected weights.bin of" in service.until("store_version_refused")["reason"]
        weights = ObjectStore(parse_url(f"{server.url}/words/4"))
        weights.write("weights.bin", bundles(1) / "weights.bin")
        upload(bundles(4), f"{server.url}/words/4", without=("weights.bin",))
        assert "expected SHA-256" in service.until("store_version_refused")["reason"]
        before = client.answers["1"]
        until(lambda: client.answers["1"] > before + 20)
        assert served(service) == ["1"]
        weights.write("weights.bin", bundles(4) / "weights.bin")
        until(lambda: client.answers["4"] > 0)
        assert served(service) == ["1", "4"]
    finally:
        client.stop()
    assert client.failures == []
    assert service.read_log().count('"store_version_refused"') == 2
