"""One server process over bundles of every family, and the same bundles in process."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hsoftmax import AsyncClient, Client, exporter
from tests.exporter.sources.fasttext_files import FastTextFile
from tests.service.conftest import export
from tests.service.processes import Process

KEY = "secret"
LABELS = {"__label__fr": 5, "__label__en": 4, "__label__de": 2}


@pytest.fixture(scope="session")
def repository(tmp_path_factory) -> Path:
    """Bundles `words`, `plain` and `lid`, which is from fastText."""
    folder = tmp_path_factory.mktemp("client")
    repository = export(folder / "repository")
    (folder / "lid.bin").write_bytes(FastTextFile(labels=LABELS).content())
    exporter.export_file(folder / "lid.bin", repository / "lid" / "1", source="fasttext")
    return repository


@pytest.fixture(scope="session")
def process(repository, tmp_path_factory) -> Iterator[Process]:
    state = tmp_path_factory.mktemp("state")
    process = Process(repository, api_keys=KEY, state=state)
    yield process
    process.end()


@pytest.fixture
def client(process) -> Iterator[Client]:
    with Client(f"http://{process.address}", api_key=KEY) as client:
        yield client


@pytest.fixture
def async_client(process):
    """Function that returns a new client for asyncio."""
    return lambda: AsyncClient(f"http://{process.address}", api_key=KEY)
