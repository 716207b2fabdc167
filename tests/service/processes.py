"""The service in processes of its own, on a free port, and connections to it."""

import http.client
import json
import os
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

RUN = "from hsoftmax import service; service.serve(service.Settings())"


class Process:
    """`serve` until `end`."""

    def __init__(
        self, repository: Path, run: str = RUN, waits_for: str = "loaded", **settings: object
    ) -> None:
        told = {"repository": repository, "port": 0, "threads": 1, **settings}
        environment = {f"HSOFTMAX_{name.upper()}": str(value) for name, value in told.items()}
        # A file: nobody reads a pipe all the time, and a full one would stop the service.
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed by `end`
        self.process = subprocess.Popen(
            [sys.executable, "-c", run], env=os.environ | environment, stderr=self._log
        )
        self._read = 0
        self.connections: list[http.client.HTTPConnection] = []
        self.url = urlsplit(self.until("serving")["url"])
        self.address = self.url.netloc
        if waits_for != "serving":
            self.until(waits_for)

    def until(self, event: str, seconds: float = 60) -> dict:
        """Read the log on, up to this event."""
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            ended = self.process.poll() is not None
            for line in self._lines():
                self._read += len(line.encode())
                if line.startswith("{") and (told := json.loads(line))["event"] == event:
                    return told
            if ended:
                break
            time.sleep(0.02)
        raise AssertionError(f"the process never said {event}: {self.said()}")

    def said(self) -> str:
        """The whole log so far."""
        return os.pread(self._log.fileno(), 10_000_000, 0).decode()

    def _lines(self) -> list[str]:
        new = self.said().encode()[self._read :].decode()
        return [line for line in new.splitlines(keepends=True) if line.endswith("\n")]

    def connect(self) -> http.client.HTTPConnection:
        if self.url.scheme == "https":
            unchecked = ssl._create_unverified_context()
            made = http.client.HTTPSConnection(self.address, timeout=10, context=unchecked)
        else:
            made = http.client.HTTPConnection(self.address, timeout=10)
        self.connections.append(made)
        return made

    def end(self) -> None:
        for connection in self.connections:
            connection.close()
        self.process.kill()
        self.process.wait()
        self._log.close()

    def get(self, url: str, headers: dict[str, str] | None = None) -> tuple[int, dict]:
        return self.call("GET", url, headers=headers)

    def call(
        self,
        method: str,
        url: str,
        body: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, dict]:
        connection = self.connect()
        connection.request(method, url, body, headers or {})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        self.connections.remove(connection)
        return answer.status, json.loads(content)


Start = Callable[..., Process]
