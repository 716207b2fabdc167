"""Fixtures: a uvicorn server with the bounded protocol, on both event loops, and raw clients."""

import logging
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

from hsoftmax.service.http.protocol import BoundedProtocol

from .peer import Peer, echo_app, opened


@pytest.fixture(params=["asyncio", "uvloop"], scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[uvicorn.Server]:
    config = uvicorn.Config(
        echo_app,
        port=0,
        http=BoundedProtocol,
        ws="none",  # the protocol ignores upgrades
        loop=request.param,
        lifespan="off",
        log_config=None,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server
    server.should_exit = server.force_exit = True
    thread.join()


@pytest.fixture
def port(server: uvicorn.Server) -> int:
    return server.servers[0].sockets[0].getsockname()[1]


@pytest.fixture(autouse=True)
def quiet_log_and_closed_clients(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    while opened:
        opened.pop().socket.close()
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR] == []


@pytest.fixture
def peer(port: int) -> Peer:
    return Peer(port)
