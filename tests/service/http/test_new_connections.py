"""A test that new connections are accepted soon although others keep the service busy."""

import asyncio
import json
import time

from tests.service.conftest import HIDDEN

from .peer import post

CONNECTIONS, SECONDS = 192, 2.0
QUERY = json.dumps({"inputs": [[0.5] * HIDDEN], "targets": [1]}).encode()
REQUEST = post(QUERY, b"content-type: application/json", path=b"/v1/models/words/probabilities")


async def _ask_until(end: float, host: str, port: int) -> int:
    """Send requests over one connection, one after another; return the number of answers."""
    reader, writer = await asyncio.open_connection(host, port)
    answers = 0
    while time.monotonic() < end:
        writer.write(REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        await reader.readuntil(b"}")
        answers += 1
    writer.close()
    return answers


async def _answers(host: str, port: int) -> list[int]:
    """Return the number of answers of each connection; all are opened at once."""
    end = time.monotonic() + SECONDS
    return await asyncio.gather(*(_ask_until(end, host, port) for _ in range(CONNECTIONS)))


def test_all_of_many_new_connections_have_their_turn(start):
    server = start()
    answers = asyncio.run(_answers(server.url.hostname, server.url.port))
    # With one accepted connection in a round, the first had 83 answers and the last had one.
    assert min(answers) * 4 >= max(answers), sorted(answers)
