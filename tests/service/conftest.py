"""Fixtures: one small repository, exported once by the real exporter, and clients of it."""

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

# Tolerance of float32 graphs against the float64 reference: many ulps of ordinary logits.
TOLERANCE = 1e-5


def random_model(seed: int) -> models.Model:
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


# Models of the repository by name and version. Only `words` has labels.
SERVED = {
    ("words", 1): random_model(1),
    ("words", 2): random_model(2),
    ("plain", 7): random_model(3),
}


# Version 3 of `words`, exported outside the repository.
SPARE = random_model(5)


# A bundle in a repository of its own: few targets, and labels that a line of UTF-8 cannot hold.
ODD_LABELS = ("plain", "a\nb", "\udc80", "\\n", "end\r", "\ufeffmark")


def odd_model() -> models.Model:
    rng = np.random.default_rng(2)
    shapes = [(HIDDEN, 2), (2,), (2, HIDDEN, 3), (2, 3)]
    return models.from_theano(*(rng.normal(size=shape) for shape in shapes))


def export(repository: Path) -> Path:
    """Export all models of SERVED into the repository."""
    for (name, version), model in SERVED.items():
        to = exporter.parse_destination(repository / name / str(version))
        exporter.export_model(model, to, labels=LABELS if name == "words" else None)
    return repository


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> Path:
    """Export all bundles before the first service starts, and return their folder.

    Tests count threads: after this fixture, all new threads belong to a service.
    """
    folder = tmp_path_factory.mktemp("service")
    exporter.export_model(SPARE, exporter.parse_destination(folder / "spare" / "3"))
    odd = exporter.parse_destination(folder / "odd_repository" / "odd")
    exporter.export_model(odd_model(), odd, labels=ODD_LABELS)
    export(folder / "repository")
    return folder


@pytest.fixture(scope="session")
def repository(exported) -> Path:
    return exported / "repository"


@pytest.fixture
def spare(exported, tmp_path) -> Path:
    """Copy of version 3 of `words`, which a test moves into a copy of the repository."""
    return shutil.copytree(exported / "spare" / "3", tmp_path / "spare")


@contextmanager
def serving(repository: Path, **settings) -> Iterator[TestClient]:
    """Run an app that has loaded its repository; yield a client of it."""
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
    """Function that starts a service process with given settings. The fixture ends all of them."""
    processes = []

    def start(repository: Path = repository, **settings) -> Process:
        processes.append(Process(repository, **settings))
        return processes[-1]

    yield start
    for process in processes:
        process.end()


@pytest.fixture
def copy(repository, tmp_path) -> Path:
    """Copy of the repository, which a test may change."""
    return shutil.copytree(repository, tmp_path / "repository")


@pytest.fixture
def ask(client) -> Callable:
    """Function that sends a query about `words` or another bundle and returns the response JSON."""

    def ask(operation: str, name: str = "words", **query) -> dict:
        response = client.post(f"/v1/models/{name}/{operation}", json=query)
        assert response.status_code == 200, response.text
        return response.json()

    return ask


@pytest.fixture
def hidden() -> Array:
    return np.random.default_rng(9).normal(size=(3, HIDDEN)).astype(np.float32)


def expect_error(response, status: int, code: str, sentence: str = "") -> None:
    """Assert that the response is an error of its route's shape, without internals in its sentence.

    Files and batches have the shape of OpenAI's API, and all other routes have ours.
    """
    assert response.status_code == status, response.text
    body = response.json()
    error, got_code = error_of(body)
    if isinstance(body["error"], dict):
        assert set(body) == {"error", "request_id"}
        assert set(body["error"]) == {"message", "type", "param", "code"}
    else:
        assert set(body) == {"error", "code", "request_id"}
    assert got_code == code, body
    assert sentence in error, body
    assert body["request_id"] == response.headers["x-request-id"]
    assert response.headers["content-type"] == "application/json"
    for inside in ("/tmp", "Traceback", "Error(", ".py", "onnx"):
        assert inside not in error


def error_of(body: dict) -> tuple[str, str]:
    """Return the sentence and the code of an error in either shape."""
    error = body["error"]
    return (error["message"], error["code"]) if isinstance(error, dict) else (error, body["code"])


@pytest.fixture
def app(repository) -> Iterator[Callable[..., FastAPI]]:
    """Function that creates an app with a loaded repository, given settings and a log stream."""
    contexts = []

    def app(log: io.BytesIO | None = None, **settings) -> FastAPI:
        app_settings = Settings(repository=repository, threads=1, **settings)
        app = create_app(app_settings, log=json_log("error" if log is None else "info", log))
        contexts.append(context_of(app))
        contexts[-1].load()
        return app

    yield app
    for context in contexts:
        context.engine.close()
