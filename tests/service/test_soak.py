"""Soak test with mixed load, `make test-soak`. It runs for $SOAK_SECONDS (default 300)."""

import http.client
import json
import os
import random
import socket
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from .conftest import HIDDEN
from .repository.test_lifecycle import replaced

SECONDS = float(os.environ.get("SOAK_SECONDS", "300"))
GROWTH = 24e6  # maximum growth of private memory in bytes from the first fifth to the end
URL = "/v1/models/words/"
ROW = [0.1] * HIDDEN
REQUESTS: dict[str, tuple[str, dict, set[int]]] = {
    "one target": ("probabilities", {"inputs": [ROW], "targets": [3]}, {200}),
    "many targets": ("probabilities", {"inputs": [ROW] * 50, "targets": [[1, 2]] * 50}, {200}),
    "distributions": ("probabilities", {"inputs": [ROW] * 200}, {200, 429}),
    "top-k": ("top_k", {"inputs": [ROW] * 20, "k": 5}, {200, 429}),
    "sample": ("sample", {"inputs": [ROW] * 5, "num_samples": 20}, {200}),
    "too wide": ("probabilities", {"inputs": [[*ROW, 1.0]]}, {422}),
    "out of range": ("probabilities", {"inputs": [ROW], "targets": [10**9]}, {422}),
}


class RandomClient:
    """Client that sends random requests, and sometimes disconnects before the response."""

    def __init__(self, server, seed: int, until: float) -> None:
        self.seen: Counter[tuple[str, int]] = Counter()
        self.failure: BaseException | None = None
        self._server = server
        self._random = random.Random(seed)
        self._until = until
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        connection = self._server.connect()
        try:
            while time.monotonic() < self._until:
                if self._random.random() < 0.02:
                    self._leave()
                self._ask(connection)
        except BaseException as error:
            self.failure = error

    def _ask(self, connection: http.client.HTTPConnection) -> None:
        name = self._random.choice(list(REQUESTS))
        operation, query, expected = REQUESTS[name]
        connection.request("POST", URL + operation, json.dumps(query))
        response = connection.getresponse()
        body = response.read()
        assert response.status in expected, (name, response.status, body[:200])
        self.seen[name, response.status] += 1

    def _leave(self) -> None:
        host, port = self._server.address.split(":")
        body = json.dumps(REQUESTS["distributions"][1])
        head = f"POST {URL}probabilities HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n\r\n"
        with socket.create_connection((host, int(port))) as left:
            left.sendall((head + body).encode())


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 120)
def test_everything_at_once_for_minutes(copy, spare, start):
    """Under load, bad requests, disconnects and reloads nothing fails and memory does not grow."""
    server = start(copy, watch=False, admin_key="root", max_queue_requests=8)
    began = time.monotonic()
    askers = [RandomClient(server, seed, began + SECONDS) for seed in range(6)]
    sizes: list[tuple[float, int]] = []
    reloads = 0
    while time.monotonic() < began + SECONDS:
        replaced(server, copy / "words" / "2", spare)
        reloads += 1
        assert server.get("/healthz/live")[0] == 200
        sizes.append((time.monotonic() - began, own_bytes(server.process.pid)))
        time.sleep(0.2)
    for asker in askers:
        asker.join()
    assert [asker.failure for asker in askers if asker.failure] == []
    seen = sum((asker.seen for asker in askers), Counter())
    assert {name for name, _ in seen} == set(REQUESTS)
    assert reloads > SECONDS / 5
    first = [size for at, size in sizes if at < SECONDS / 5]
    last = [size for at, size in sizes if at > SECONDS * 4 / 5]
    assert np.median(last) - np.max(first) < GROWTH
    assert server.get("/healthz/ready")[0] == 200


def own_bytes(pid: int) -> int:
    """Return the private memory of the process, without mapped files."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon")
