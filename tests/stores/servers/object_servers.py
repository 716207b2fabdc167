"""Real servers of object stores: moto for S3 and azurite for Azure, as `make test-stores` installs.

Each has the environment variables with which the service, and the library in the tests, reach it.
"""

import base64
import hashlib
import hmac
import http.client
import os
import shutil
import socket
import subprocess
import time
from email.utils import formatdate
from pathlib import Path

import pytest

BUILD = Path(__file__).parents[3] / "build"
MOTO = BUILD / "stores-venv" / "bin" / "moto_server"
AZURITE = BUILD / "stores" / "node_modules" / ".bin" / "azurite-blob"
BUCKET = "bucket"
START_S = 60


class ObjectServer:
    """A process that can be stopped, and started again at the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.start()

    def command(self) -> list[str | Path]:
        raise NotImplementedError

    def environment(self, port: int) -> dict[str, str]:
        """The variables of a client that reaches this server at a port, perhaps of a proxy."""
        raise NotImplementedError

    def make_bucket(self) -> None:
        raise NotImplementedError

    def start(self) -> None:
        log = (self.folder / "server.log").open("ab")
        self._process = subprocess.Popen(self.command(), stdout=log, stderr=log)
        log.close()
        deadline = time.monotonic() + START_S
        while not _accepts(self.port):
            assert self._process.poll() is None, (self.folder / "server.log").read_text()
            assert time.monotonic() < deadline, "the server never listened"
            time.sleep(0.05)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def put(self, path: str, headers: dict[str, str]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("PUT", path, headers=headers | {"content-length": "0"})
        status = connection.getresponse().status
        connection.close()
        assert status in (200, 201), status


class Moto(ObjectServer):
    """S3. It keeps objects in memory, so that a stop loses them."""

    url = f"s3://{BUCKET}/models"

    def command(self) -> list[str | Path]:
        return [expect(MOTO, "moto"), "-H", "127.0.0.1", "-p", str(self.port)]

    def environment(self, port: int) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }

    def make_bucket(self) -> None:
        self.put(f"/{BUCKET}", {})


class Azurite(ObjectServer):
    """Azure Blob Storage. It keeps objects on the disk. Account and key are its documented ones."""

    url = f"az://{BUCKET}/models"
    account = "devstoreaccount1"
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

    def command(self) -> list[str | Path]:
        if shutil.which("node") is None:
            pytest.fail("needs Node.js for azurite: apt-get install nodejs npm")
        return [
            expect(AZURITE, "azurite"), "--blobHost", "127.0.0.1", "--blobPort", str(self.port),
            "--location", self.folder, "--skipApiVersionCheck", "--disableTelemetry", "--silent",
        ]  # fmt: skip

    def environment(self, port: int) -> dict[str, str]:
        return {
            "AZURE_STORAGE_ACCOUNT_NAME": self.account,
            "AZURE_STORAGE_ACCOUNT_KEY": self.key,
            "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{port}/{self.account}",
            "AZURE_ALLOW_HTTP": "true",
        }

    def make_bucket(self) -> None:
        """Create the container, by a request that is signed with the key of the account."""
        path = f"/{self.account}/{BUCKET}"
        signed = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-12-02"}
        canonical = "".join(f"{name}:{value}\n" for name, value in signed.items())
        text = f"PUT\n{chr(10) * 11}{canonical}/{self.account}{path}\nrestype:container"
        mac = hmac.digest(base64.b64decode(self.key), text.encode(), hashlib.sha256)
        authorization = f"SharedKey {self.account}:{base64.b64encode(mac).decode()}"
        self.put(f"{path}?restype=container", signed | {"authorization": authorization})


def expect(program: Path, name: str) -> Path:
    """Return the path of a program. A missing one is a failure, not a skip."""
    if not os.access(program, os.X_OK):
        pytest.fail(f"needs {name} at {program.relative_to(BUILD.parent)}: make test-stores")
    return program


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
