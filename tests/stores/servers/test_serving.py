"""A service whose repository is in a real server of S3 or of Azure."""

import time

import pytest

from .conftest import ask_steadily, metric, serve, served, upload

pytestmark = pytest.mark.stores


def test_new_versions_are_served_and_a_store_that_stops_costs_nothing(
    server, bundles, start, tmp_path
):
    upload(bundles(1), f"{server.url}/words/1")
    service = serve(start, server.url, tmp_path / "cache", workers=2)
    service.until("loaded")  # by the other worker
    client = ask_steadily(service, range(1, 5))
    try:
        upload(bundles(2), f"{server.url}/words/2")
        until(lambda: client.answers["2"] > 0)
        server.stop()
        assert "store's answer" in service.until("store_failed")["reason"]
        before = client.answers["2"]
        until(lambda: client.answers["2"] > before + 50)
        assert served(service) == ["1", "2"]
        assert metric(service, "hsoftmax_store_up") == 0
        server.start()
        restore(server, bundles)
        service.until("store_recovered")
        upload(bundles(3), f"{server.url}/words/3")
        until(lambda: client.answers["3"] > 0)
    finally:
        client.stop()
    assert client.failures == []
    assert sum(client.answers.values()) > 100
    assert service.read_log().count('"store_failed"') == 1 + lost(service)


def lost(service) -> int:
    """1 if the server came back without its bucket, which the service also says."""
    return int("expected it in the store, got none" in service.read_log())


def restore(server, bundles) -> None:
    """Make the bucket and its content again where the server has lost them with its memory."""
    if server.url.startswith("s3"):
        server.make_bucket()
        for version in (1, 2):
            upload(bundles(version), f"{server.url}/words/{version}")


def test_a_restart_while_the_store_is_away_serves_what_was_downloaded(
    server, bundles, start, tmp_path
):
    upload(bundles(1), f"{server.url}/words/1")
    serve(start, server.url, tmp_path / "cache").end()
    server.stop()
    service = serve(start, server.url, tmp_path / "cache")
    client = ask_steadily(service, range(1, 2))
    until(lambda: client.answers["1"] > 20)
    client.stop()
    assert client.failures == []


def test_the_variables_of_the_emulator_reach_azurite(start, bundles, tmp_path, monkeypatch, azure):
    for name in azure.environment(0):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AZURE_STORAGE_USE_EMULATOR", "true")
    monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", f"http://127.0.0.1:{azure.port}")
    upload(bundles(1), f"{azure.url}/words/1")
    assert served(serve(start, azure.url, tmp_path / "cache")) == ["1"]


def until(is_so, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)
