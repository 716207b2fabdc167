"""Runs the service in its own process on a free port, and connects to it."""

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
    """A service process, from its start until `end`. The log is read from its standard error."""

    def __init__(
        self, repository: Path, run: str = RUN, waits_for: str = "loaded", **settings: object
    ) -> None:
        variables = {"repository": repository, "port": 0, "threads": 1, **settings}
        environment = {f"HSOFTMAX_{name.upper()}": str(value) for name, value in variables.items()}
        # A file, as a pipe that is not read would fill up and block the service.
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed by `end`
        self.process = subprocess.Popen(
            [sys.executable, "-c", run], env=os.environ | environment, stderr=self._log
        )
        self._read = 0
        self.connections: list[http.client.HTTPConnection] = []
        try:
            serving = self.until("serving")
            self.url = urlsplit(serving["url"])
            self.address = self.url.netloc
            self.metrics_address = urlsplit(serving.get("metrics", "")).netloc
            if waits_for != "serving":
                self.until(waits_for)
        except BaseException:
            self.end()
            raise

    def until(self, event: str, seconds: float = 60) -> dict:
        """Read the log up to the next line of this event, and return that line."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            has_ended = self.process.poll() is not None
            for line in self._lines():
                self._read += len(line.encode())
                if line.startswith("{") and (record := json.loads(line))["event"] == event:
                    return record
            if has_ended:
                break
            time.sleep(0.02)
        raise AssertionError(f"the process never said {event}: {self.read_log()}")

    def read_log(self) -> str:
        """Return the whole log so far."""
        return os.pread(self._log.fileno(), 10_000_000, 0).decode()

    def _lines(self) -> list[str]:
        new = self.read_log().encode()[self._read :].decode()
        return [line for line in new.splitlines(keepends=True) if line.endswith("\n")]

    def connect(self) -> http.client.HTTPConnection:
        if self.url.scheme == "https":
            unchecked = ssl._create_unverified_context()
            connection = http.client.HTTPSConnection(self.address, timeout=10, context=unchecked)
        else:
            connection = http.client.HTTPConnection(self.address, timeout=10)
        self.connections.append(connection)
        return connection

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
        response = connection.getresponse()
        content = response.read()
        connection.close()
        self.connections.remove(connection)
        return response.status, json.loads(content)


Start = Callable[..., Process]
