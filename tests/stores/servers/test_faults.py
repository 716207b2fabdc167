"""Faults between a service and its store: nothing that is served fails, each fault is one line."""

import time

import pytest

from .conftest import ask_steadily, serve, upload
from .fault_proxy import FaultProxy, cut, flip, hang, refuse, shorten, slow
from .steady_client import SteadyClient

pytestmark = pytest.mark.stores

EXPIRED = refuse(b"403 Forbidden", b"ExpiredToken")
OVERLOAD = refuse(b"503 Service Unavailable", b"SlowDown")
OF_A_FILE = {
    "cut": (cut, "weights.bin", "got no whole answer"),
    "503": (OVERLOAD, "weights.bin", "got status 503"),
    "wrong bytes": (flip, "weights.bin", "expected SHA-256"),
    "wrong manifest": (flip, "bundle.json", "bundle.json"),
    "fewer bytes": (shorten, "weights.bin", "bytes, got"),
    "expired": (EXPIRED, "weights.bin", "expected valid credentials, got ExpiredToken"),
    "expired, with the status of S3": (
        refuse(b"400 Bad Request", b"ExpiredToken"),
        "weights.bin",
        "expected valid credentials, got ExpiredToken",
    ),
    "denied": (
        refuse(b"403 Forbidden", b"AccessDenied"),
        "weights.bin",
        "got a refusal (AccessDenied)",
    ),
}
OF_THE_LIST = {
    "cut": (cut, "got no whole answer"),
    "503": (OVERLOAD, "got status 503"),
    "expired": (EXPIRED, "expected valid credentials, got ExpiredToken"),
}
LAST_VERSION = 2 + len(OF_A_FILE)


class Scene:
    """A service that reads S3 through the proxy, and a client that asks it all the time."""

    def __init__(self, s3, bundles, start, folder, monkeypatch) -> None:
        self.s3 = s3
        self.bundles = bundles
        self.proxy = FaultProxy(s3.port)
        upload(bundles(1), f"{s3.url}/words/1")
        with monkeypatch.context() as environment:
            for name, value in s3.environment(self.proxy.port).items():
                environment.setenv(name, value)
            self.service = serve(start, s3.url, folder)
        self.client: SteadyClient = ask_steadily(self.service, range(1, LAST_VERSION + 1))

    def upload(self, version: int) -> None:
        upload(self.bundles(version), f"{self.s3.url}/words/{version}")

    def until_answers(self, version: int, seconds: float = 90) -> None:
        deadline = time.monotonic() + seconds
        while not self.client.answers[str(version)]:
            assert time.monotonic() < deadline, self.service.read_log()
            time.sleep(0.02)

    def lines(self, event: str) -> int:
        return self.service.read_log().count(f'"event":"{event}"')

    def expect_nothing_failed(self) -> None:
        self.client.stop()
        assert self.client.failures == []
        assert self.client.answers["1"] > 20
        assert "SECRET" not in self.service.read_log()


@pytest.fixture
def scene(s3, bundles, start, tmp_path, monkeypatch):
    scene = Scene(s3, bundles, start, tmp_path / "cache", monkeypatch)
    yield scene
    scene.client.stop()
    scene.proxy.close()


def test_each_fault_of_a_file_is_one_line_and_passes(scene):
    for version, (fault, about, sentence) in enumerate(OF_A_FILE.values(), 2):
        scene.proxy.spoil(about, fault)
        scene.upload(version)
        refused = scene.service.until("store_version_refused", 90)
        assert refused["version"] == str(version)
        assert f"s3://bucket/models/words/{version}" in refused["reason"]
        assert sentence in refused["reason"]
        assert scene.proxy.hits > 0
        assert not scene.client.answers[str(version)]
        scene.proxy.heal()
        scene.until_answers(version)
    scene.expect_nothing_failed()
    assert scene.lines("store_version_refused") == len(OF_A_FILE)
    assert scene.lines("store_failed") == 0


def test_each_fault_of_the_list_is_one_line_and_passes(scene):
    for version, (fault, sentence) in enumerate(OF_THE_LIST.values(), 2):
        scene.proxy.spoil("list-type", fault)
        scene.upload(version)
        assert sentence in scene.service.until("store_failed", 90)["reason"]
        assert not scene.client.answers[str(version)]
        scene.proxy.heal()
        scene.service.until("store_recovered")
        scene.until_answers(version)
    scene.expect_nothing_failed()
    assert scene.lines("store_failed") == len(OF_THE_LIST)
    assert scene.lines("store_version_refused") == 0


def test_a_slow_store_is_waited_for_and_one_that_hangs_is_one_line(scene):
    scene.proxy.spoil("weights.bin", slow)
    scene.upload(2)
    scene.until_answers(2)
    assert scene.proxy.hits > 0
    assert scene.lines("store_version_refused") == 0
    scene.proxy.spoil("weights.bin", hang)
    scene.upload(3)
    refused = scene.service.until("store_version_refused", 240)
    assert "got none in time" in refused["reason"]
    scene.proxy.heal()
    scene.until_answers(3)
    scene.expect_nothing_failed()
