"""Fixtures: a real server of S3 or Azure with a bucket, and versions of a model to upload."""

import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from hsoftmax import exporter
from hsoftmax.stores.objects import ObjectStore
from hsoftmax.stores.url import parse_url
from tests.service.conftest import random_model, start
from tests.service.processes import Process, Start

from .object_servers import Azurite, Moto, ObjectServer
from .steady_client import SteadyClient

__all__ = ["start"]

FIRST_SEED = 100


def model(version: int):
    """The weights of a version of `words`; each has others, so that a wrong answer is seen."""
    return random_model(FIRST_SEED + version)


@pytest.fixture(scope="session")
def bundles(tmp_path_factory) -> Callable[[int], Path]:
    """Function that exports a version of `words` and returns its folder."""
    repository = tmp_path_factory.mktemp("bundles")

    @cache
    def make(version: int) -> Path:
        to = exporter.parse_destination(repository / "words" / str(version))
        return exporter.export_model(model(version), to).path

    return make


@pytest.fixture
def repository(tmp_path) -> Path:
    """The local repository of the fixture `start`; tests of stores give an address instead."""
    return tmp_path


@pytest.fixture(params=[Moto, Azurite], ids=["s3", "azure"])
def server(request, tmp_path, monkeypatch) -> Iterator[ObjectServer]:
    """A server with an empty bucket, which the environment of the test reaches."""
    yield from running(request.param, tmp_path, monkeypatch)


@pytest.fixture
def s3(tmp_path, monkeypatch) -> Iterator[ObjectServer]:
    """The server of S3 alone."""
    yield from running(Moto, tmp_path, monkeypatch)


@pytest.fixture
def azure(tmp_path, monkeypatch) -> Iterator[ObjectServer]:
    """The server of Azure alone."""
    yield from running(Azurite, tmp_path, monkeypatch)


def running(kind: type[ObjectServer], folder: Path, monkeypatch) -> Iterator[ObjectServer]:
    for name in [name for name in os.environ if name.startswith(("AWS_", "AZURE_"))]:
        monkeypatch.delenv(name)
    (folder / "server").mkdir()
    server = kind(folder / "server")
    try:
        for name, value in server.environment(server.port).items():
            monkeypatch.setenv(name, value)
        server.make_bucket()
        yield server
    finally:
        server.stop()


def upload(folder: Path, url: str, *, without: tuple[str, ...] = ()) -> None:
    """Write the files of a bundle to an address, the manifest last."""
    store = ObjectStore(parse_url(url))
    names = sorted((path.name for path in folder.iterdir()), key=lambda name: name == "bundle.json")
    for name in names:
        if name not in without:
            store.write(name, folder / name)


def serve(start: Start, url: str, cache: Path, **settings: object) -> Process:
    """Start a service that reads the store five times a second."""
    settings = {"store_cache": cache, "store_interval": 0.2, **settings}
    return start(url, **settings)


def ask_steadily(service: Process, versions: range) -> SteadyClient:
    return SteadyClient(service, {str(version): model(version) for version in versions})


def served(service: Process) -> list[str]:
    """The versions of `words` that are served."""
    status, body = service.get("/v1/models/words")
    assert status == 200, body
    return body["versions"]


def metric(service: Process, name: str) -> float:
    connection = service.connect()
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    return float(next(line.split()[-1] for line in text.splitlines() if line.startswith(name)))
