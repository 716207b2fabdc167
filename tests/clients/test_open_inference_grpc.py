"""Clients of the Open Inference Protocol over gRPC: Triton's and KServe's."""

import pytest

from hsoftmax.service.grpc.messages import DESCRIPTOR_FILE
from tests.service.grpc.test_server import address_of
from tests.service.processes import Process, Start

from .environments import PROGRAMS, python_environment, run

pytestmark = pytest.mark.clients

ADMIN_KEY = "admin"


@pytest.fixture
def grpc_server(start: Start) -> Process:
    """A server whose log has no line of an error."""
    process = start(grpc_port=0, admin_key=ADMIN_KEY)
    yield process
    log = process.read_log()
    assert '"level":"error"' not in log, log[-6000:]


def arguments(server: Process) -> tuple[str, ...]:
    return address_of(server), server.address, ADMIN_KEY, str(DESCRIPTOR_FILE)


def test_tritons_grpc_clients(grpc_server):
    python = python_environment("triton") / "python"
    printed = run(python, PROGRAMS / "triton_grpc.py", *arguments(grpc_server))
    assert "fields, 24 forms" in printed
    assert int(printed.split()[0]) > 100


def test_kserves_grpc_client(grpc_server):
    python = python_environment("kserve") / "python"
    run(python, PROGRAMS / "kserve_grpc.py", *arguments(grpc_server))
