"""Starts servers as processes on one core, waits until they are ready, and ends them."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

SERVER_CORE, LOAD_CORE = 0, 1
_START_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Server:
    """Port and process id of a running server."""

    port: int
    pid: int

    def cpu_seconds(self) -> float:
        """Return the processor time of the process and its children."""
        return sum(_ticks(pid) for pid in _family(self.pid)) / os.sysconf("SC_CLK_TCK")

    def resident_mib(self) -> float:
        """Return the resident memory of the process and its children."""
        return sum(_resident_kib(pid) for pid in _family(self.pid)) / 1024


@contextmanager
def service(repository: Path, **settings: object) -> Iterator[Server]:
    """Run the service, by default with one thread."""
    port = free_port()
    options = {"threads": 1, **settings}
    flags = [_flag(name, value) for name, value in options.items()]
    command = [sys.executable, "-m", "hsoftmax", "serve", str(repository), f"--port={port}"]
    with running([*command, *flags], port, {}) as server:
        yield server


@contextmanager
def app(name: str, bundle: Path, protocol: str = "bounded") -> Iterator[Server]:
    """Run one of `apps` with the service's protocol class or another one."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.http.serve_app", name, str(port), protocol]
    with running(command, port, {"BENCHMARK_BUNDLE": str(bundle)}) as server:
        yield server


@contextmanager
def grpc_app(bundle: Path, grpc_port: int) -> Iterator[Server]:
    """Run the lean gRPC server; the port of the yielded server is that of its health check."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.http.serve_grpc", str(grpc_port), str(port)]
    with running(command, port, {"BENCHMARK_BUNDLE": str(bundle)}) as server:
        yield server


@contextmanager
def running(command: list[str], port: int, environment: Mapping[str, str]) -> Iterator[Server]:
    """Run a command that listens on the port, pinned to the server's core."""
    process = subprocess.Popen(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait_until_ready(port, process)
        yield Server(port, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        with suppress(ProcessLookupError):  # child processes that are still there
            os.killpg(process.pid, signal.SIGKILL)


def _flag(name: str, value: object) -> str:
    flag = f"--{name.replace('_', '-')}"
    return flag if value is None else f"{flag}={value}"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def ask(port: int, method: str, path: str, body: str | bytes | None = None) -> tuple[int, bytes]:
    """Send one request on a new connection; return status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, {"content-type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _wait_until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until the server responds, and not with 503 at /healthz/ready."""
    end = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended: {process.args!r}")
        try:
            status, _ = ask(port, "GET", "/healthz/ready")
        except OSError:
            status = 503
        if status != 503:
            return
        time.sleep(0.1)
    raise RuntimeError(f"the server did not come up: {process.args!r}")


def wait_for_answer(port: int, path: str) -> None:
    """Wait until a GET of the path has status 200."""
    end = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < end:
        with suppress(OSError):
            if ask(port, "GET", path)[0] == 200:
                return
        time.sleep(0.1)
    raise RuntimeError(f"{path}: expected status 200 within {_START_TIMEOUT_S:g} s, got another")


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in _family(int(child)))]


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _resident_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0
