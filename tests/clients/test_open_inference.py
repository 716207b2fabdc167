"""Clients of the Open Inference Protocol over HTTP: Triton's, KServe's, and a generated one."""

import pytest

from tests.service.processes import Process, Start

from .environments import PROGRAMS, python_environment, run

pytestmark = pytest.mark.clients

ADMIN_KEY = "admin"


@pytest.fixture
def oip_server(start: Start) -> Process:
    """A server that compresses small answers too, and whose log has no line of an error."""
    process = start(admin_key=ADMIN_KEY, compress_above=1000)
    yield process
    log = process.read_log()
    assert '"level":"error"' not in log, log[-6000:]


def test_tritons_http_clients(oip_server):
    tools = python_environment("triton")
    printed = run(tools / "python", PROGRAMS / "triton_http.py", oip_server.address, ADMIN_KEY)
    assert "216 forms" in printed


def test_kserves_rest_client(oip_server):
    tools = python_environment("kserve")
    run(tools / "python", PROGRAMS / "kserve_rest.py", oip_server.address)


def test_the_client_that_is_generated_from_the_specification(oip_server):
    tools = python_environment("open-inference")
    run(tools / "python", PROGRAMS / "generated_open_inference.py", oip_server.address)
