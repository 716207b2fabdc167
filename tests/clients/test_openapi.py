"""The OpenAPI document is valid, and clients are generated from it that talk to the service."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from hsoftmax import exporter, models
from tests.service.processes import Process, Start

from .environments import PROGRAMS, python_environment, run

pytestmark = pytest.mark.clients

# Of the formats that openapi-python-client does not know, this is sent as bytes. It leaves out the
# others, and says so.
CONFIG = """
content_type_overrides:
  application/x-ndjson: application/octet-stream
"""
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_headers_conformance", "response_schema_conformance", "unsupported_method",
    "ignored_auth",
)  # fmt: skip
SEED, EXAMPLES = "1", "40"


@pytest.fixture
def closed(start: Start, repository, tmp_path) -> Process:
    """A server that needs a key, over softmaxes and a layer."""
    folder = shutil.copytree(repository, tmp_path / "repository")
    layer = models.SparseBlockDot(np.ones((2, 3, 4, 5), np.float32), np.ones((3, 5), np.float32))
    exporter.export_model(layer, exporter.parse_destination(folder / "layer" / "1"))
    return start(repository=folder, state=tmp_path / "state", api_keys="secret")


@pytest.fixture
def document(closed: Process, tmp_path) -> Path:
    status, content = closed.get("/openapi.json", {"authorization": "Bearer secret"})
    assert status == 200
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(content))
    return path


def test_the_document_is_valid(document):
    run(python_environment("openapi") / "openapi-spec-validator", document)


def test_openapi_python_client_generates_every_route(closed, document, tmp_path):
    tools = python_environment("openapi")
    config, generated = tmp_path / "config.yml", tmp_path / "generated"
    config.write_text(CONFIG)
    path = f"{tools}:{os.environ['PATH']}"  # it formats with the `ruff` beside it
    told = run(
        tools / "openapi-python-client", "generate", "--path", document, "--output-path", generated,
        "--config", config, env=os.environ | {"PATH": path},
    )  # fmt: skip
    assert "Endpoint will not be generated" not in told, told
    unsupported = re.findall(r"Unsupported content type (\S+)", told)
    assert set(unsupported) == {"application/x-npy", "application/vnd.apache.arrow.stream"}
    assert told.count("WARNING") == len(unsupported), told
    environment = os.environ | {"PYTHONPATH": str(generated)}
    url = f"http://{closed.address}"
    run(tools / "python", PROGRAMS / "generated_client.py", url, env=environment)


def test_datamodel_codegen_generates_classes_that_read_answers(closed, document, tmp_path):
    tools = python_environment("codegen")
    run(tools / "datamodel-codegen", "--input", document, "--output", tmp_path / "api.py",
        "--output-model-type", "pydantic_v2.BaseModel")  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    url = f"http://{closed.address}"
    run(tools / "python", PROGRAMS / "generated_models.py", url, env=environment)


def test_schemathesis_finds_no_answer_that_the_document_does_not_describe(
    closed, document, tmp_path
):
    tools = python_environment("schemathesis")
    environment = os.environ | {
        "PYTHONPATH": str(PROGRAMS), "SCHEMATHESIS_HOOKS": "schemathesis_hooks",
    }  # fmt: skip
    printed = run(
        tools / "schemathesis", "run", document, "--url", f"http://{closed.address}",
        "--header", "Authorization: Bearer secret", "--seed", SEED, "--max-examples", EXAMPLES,
        "--phases", "examples,coverage,fuzzing", "--checks", ",".join(CHECKS),
        "--continue-on-failure", "--no-color", cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert "Selected: 23/23" in printed, printed
    assert '"level":"error"' not in closed.read_log()
