"""Measures which parts of the service a query of one row and one target spends its time in.

The app runs in this process, without sockets: what is left is the same in the lean app, which is
timed in turns with it. A timer samples the stack each millisecond of processor time; a sample
counts for the innermost module of ours.
"""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import hsoftmax
from hsoftmax.service.app import create_app
from hsoftmax.service.logging import json_log
from hsoftmax.service.settings import Settings

from .target_queries import PATH, json_queries

ROOT = Path(hsoftmax.__file__).parents[1]
_INTERVAL_S = 0.001
_LOAD_S = 2.0  # bundles load in the background
_TURN = 1000  # queries of one app before the other has its turn
# The part of a module is that of the longest beginning of its path.
_PARTS = {
    "runtime": "native kernel or graph",
    "service/codecs": "JSON decoded and encoded",
    "service/http/body": "body read within its limits",
    "service/inference/body_bounds": "body read within its limits",
    "service/inference": "query checked, planned, response built",
    "scoring": "query checked, planned, response built",
    "models": "query checked, planned, response built",
    "service/engine": "engine",
    "service/api": "endpoint",
    "service/app": "endpoint",
    "service/repository": "endpoint",
    "service/http": "request id, headers, log line, metrics",
    "service/middleware": "request id, headers, log line, metrics",
    "service/logging": "request id, headers, log line, metrics",
    "service/metrics": "request id, headers, log line, metrics",
}
_OTHER = "this benchmark"

App = Callable[..., Awaitable[None]]


def measure(repository: Path, seconds: float) -> list[dict[str, Any]]:
    """Return the microseconds of each part, and of the service and the lean app as a whole."""
    os.environ["BENCHMARK_BUNDLE"] = str(repository / "random" / "1")
    return asyncio.run(_measure(repository, seconds))


async def _measure(repository: Path, seconds: float) -> list[dict[str, Any]]:
    from .apps import lean  # it reads BENCHMARK_BUNDLE

    bodies = [body for _, body in json_queries(repository)]
    await _ask(lean, bodies[0])  # opens its session before the service sets up threads for its own
    with open(os.devnull, "wb") as log:
        app = create_app(Settings(repository=repository, threads=1), log=json_log("info", log))
        async with _started(app):
            samples: Counter[str] = Counter()
            spent, ended = {"service": 0.0, "lean": 0.0}, time.monotonic() + 2 * seconds
            queries = 0
            while time.monotonic() < ended:
                spent["lean"] += await _run(lean, bodies)
                with _sampled(samples):
                    spent["service"] += await _run(app, bodies)
                queries += _TURN
    return _rows(samples, spent, queries)


def _rows(samples: Counter[str], spent: dict[str, float], queries: int) -> list[dict[str, Any]]:
    micros = {name: value / queries * 1e6 for name, value in spent.items()}
    each = micros["service"] / samples.total()
    rows = [{"part": part, "us": count * each} for part, count in samples.most_common()]
    whole = [{"part": f"all of {name}", "us": value} for name, value in micros.items()]
    return [*rows, *whole]


async def _run(app: App, bodies: Sequence[bytes]) -> float:
    """Ask a turn of queries; return the seconds of processor time."""
    started = time.process_time()
    for number in range(_TURN):
        await _ask(app, bodies[number % len(bodies)])
    return time.process_time() - started


async def _ask(app: App, body: bytes) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start" and message["status"] != 200:
            raise RuntimeError(f"expected status 200, got {message['status']}")

    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json"),
               (b"content-length", b"%d" % len(body))]  # fmt: skip
    scope = {
        "type": "http", "method": "POST", "path": PATH, "raw_path": PATH.encode(), "root_path": "",
        "query_string": b"", "headers": headers, "scheme": "http", "http_version": "1.1",
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000), "state": {},
    }  # fmt: skip
    await app(scope, receive, send)


@contextmanager
def _sampled(samples: Counter[str]) -> Iterator[None]:
    """Count the part of each sample while the block runs."""

    def sample(_: int, frame: FrameType | None) -> None:
        samples[_part(frame)] += 1

    signal.signal(signal.SIGPROF, sample)
    signal.setitimer(signal.ITIMER_PROF, _INTERVAL_S, _INTERVAL_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _part(frame: FrameType | None) -> str:
    """Return the part of the innermost module that has one."""
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT):
            module = str(path.relative_to(ROOT)).removeprefix("hsoftmax/").removesuffix(".py")
            found = [start for start in _PARTS if module.startswith(start)]
            if found:
                return _PARTS[max(found, key=len)]
        frame = frame.f_back
    return _OTHER


@asynccontextmanager
async def _started(app: App) -> AsyncIterator[None]:
    """Run the app's lifespan around the block, which begins when bundles are loaded."""
    messages: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    is_started = asyncio.Event()

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "lifespan.startup.complete":
            is_started.set()

    messages.put_nowait({"type": "lifespan.startup"})
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    lifespan = asyncio.ensure_future(app(scope, messages.get, send))
    await is_started.wait()
    await asyncio.sleep(_LOAD_S)
    yield
    messages.put_nowait({"type": "lifespan.shutdown"})
    await lifespan
