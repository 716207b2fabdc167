"""One small real repository for all tests, made once by the real exporter, and clients of it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

import exporter
import models
from models.arrays import Array, Float32
from service import Settings, create_app

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


def export(repository: Path) -> Path:
    for (name, version), one in SERVED.items():
        to = exporter.destination(repository / name / str(version))
        exporter.export_model(one, to, labels=LABELS if name == "words" else None)
    return repository


@pytest.fixture(scope="session")
def repository(tmp_path_factory) -> Path:
    return export(tmp_path_factory.mktemp("service") / "repository")


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
