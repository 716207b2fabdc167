"""One small real repository for all tests, made once by the real exporter, and clients of it."""

import io
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from hsoftmax import exporter, models
from hsoftmax.models.arrays import Array, Float32
from hsoftmax.service import Settings, create_app
from hsoftmax.service.context import context_of
from hsoftmax.service.logging import json_log

from .processes import Process, Start

HIDDEN, CLUSTERS, BLOCK, TARGETS = 8, 4, 3, 11
LABELS = (*tuple(f"word{i}" for i in range(TARGETS - 1)), "étoile")

# Graphs in float32 against the float64 reference: ordinary logits, so this is many times their ulp.
TOLERANCE = 1e-5


def model(seed: int) -> models.Model:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Float32:
        return rng.normal(size=shape).astype(np.float32)

    return models.from_theano(
        normal(HIDDEN, CLUSTERS),
        normal(CLUSTERS),
        normal(CLUSTERS, HIDDEN, BLOCK),
        normal(CLUSTERS, BLOCK),
        num_targets=TARGETS,
    )


# `words` has labels and two versions, `plain` neither.
SERVED = {("words", 1): model(1), ("words", 2): model(2), ("plain", 7): model(3)}


# Version 3 of `words`, which is not in the repository yet.
SPARE = model(5)


def export(repository: Path) -> Path:
    for (name, version), one in SERVED.items():
        to = exporter.parse_destination(repository / name / str(version))
        exporter.export_model(one, to, labels=LABELS if name == "words" else None)
    return repository


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> Path:
    """All that is exported, and first: afterwards the service's threads are all there are."""
    folder = tmp_path_factory.mktemp("service")
    exporter.export_model(SPARE, exporter.parse_destination(folder / "spare" / "3"))
    export(folder / "repository")
    return folder


@pytest.fixture(scope="session")
def repository(exported) -> Path:
    return exported / "repository"


@pytest.fixture
def spare(exported, tmp_path) -> Path:
    """A version of `words` that may be moved into a copy of the repository."""
    return shutil.copytree(exported / "spare" / "3", tmp_path / "spare")


@contextmanager
def serving(repository: Path, **settings) -> Iterator[TestClient]:
    """A client of an app that has loaded what it can."""
    app = create_app(Settings(repository=repository, threads=1, **settings))
    with TestClient(app, raise_server_exceptions=False) as client:
        while "being loaded" in client.get("/healthz/ready").text:
            time.sleep(0.01)
        yield client


@pytest.fixture(scope="session")
def client(repository) -> Iterator[TestClient]:
    with serving(repository) as client:
        yield client


@pytest.fixture
def start(repository) -> Iterator[Start]:
    """Start a process of the service with these settings; all are ended with the test."""
    started = []

    def start(repository: Path = repository, **settings) -> Process:
        started.append(Process(repository, **settings))
        return started[-1]

    yield start
    for one in started:
        one.end()


@pytest.fixture
def copy(repository, tmp_path) -> Path:
    """A repository of one's own, to spoil."""
    return shutil.copytree(repository, tmp_path / "repository")


@pytest.fixture
def ask(client) -> Callable:
    """POST a question about `words` or another bundle; the answer's JSON."""

    def ask(question: str, name: str = "words", **query) -> dict:
        answer = client.post(f"/v1/models/{name}/{question}", json=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return ask


@pytest.fixture
def hidden() -> Array:
    return np.random.default_rng(9).normal(size=(3, HIDDEN)).astype(np.float32)


def expect_error(answer, status: int, code: str, sentence: str = "") -> None:
    """The one error shape, and nothing of the inside in it."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"error", "code", "request_id"}
    assert body["code"] == code, body
    assert sentence in body["error"], body
    assert body["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["content-type"] == "application/json"
    for inside in ("/tmp", "Traceback", "Error(", ".py", "onnx"):
        assert inside not in body["error"]


@pytest.fixture
def app(repository) -> Iterator[Callable[..., FastAPI]]:
    """An app that has loaded the repository, with these settings, and its log if that is given."""
    cores = []

    def app(log: io.BytesIO | None = None, **settings) -> FastAPI:
        told = Settings(repository=repository, threads=1, **settings)
        made = create_app(told, log=json_log("error" if log is None else "info", log))
        cores.append(context_of(made))
        cores[-1].load()
        return made

    yield app
    for context in cores:
        context.engine.close()
