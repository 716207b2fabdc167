"""Fixtures of the clients: a server over a small repository."""

import pytest

from tests.service.conftest import exported, repository, start
from tests.service.processes import Process, Start

__all__ = ["exported", "repository", "start"]


@pytest.fixture
def server(start: Start, tmp_path) -> Process:
    """A server whose log has no line of an error when the test ends."""
    process = start(state=tmp_path / "state", max_jobs=3)
    yield process
    log = process.read_log()
    assert '"level":"error"' not in log, log[-6000:]
