"""An engine around fake graphs, whose runs a test holds and releases."""

import asyncio
import queue
import threading
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from hsoftmax.bundle import Graph, Port
from hsoftmax.models.arrays import Array
from hsoftmax.runtime.sessions import Session
from hsoftmax.service.engine import Engine, GraphCall, GraphResult, Priority, QueueLimits
from hsoftmax.service.inference.cost import call_bytes
from hsoftmax.service.logging import json_log

PATIENCE = 10  # seconds that a test waits before it fails

_HIDDEN = Port(name="hidden", dtype="float32", shape=("batch", 2))
_INPUTS = {
    "target_log_prob": (
        _HIDDEN,
        Port(name="row", dtype="int64", shape=("pairs",)),
        Port(name="target", dtype="int64", shape=("pairs",)),
    ),
    "top_k": (_HIDDEN, Port(name="k", dtype="int64", shape=(1,))),
    "log_probs": (_HIDDEN,),
}


class Held:
    """A fake runtime. After `hold`, each run waits for a permit from `go`.

    Attributes:
        ran: the feeds of each run
        poison: a value of `hidden` that makes a run fail with `error`
        deaf: True if runs ignore that they are terminated
    """

    def __init__(self, task: str) -> None:
        self.task = task
        self.ran: list[dict[str, Array]] = []
        self.threads: list[str] = []
        self.started: queue.Queue[None] = queue.Queue()
        self.terminated = threading.Event()
        self.poison: float | None = None
        self.error: type[BaseException] = RuntimeError
        self.deaf = False
        self._permits = threading.Semaphore(0)
        self._held = False

    def hold(self) -> None:
        """Make the next runs wait."""
        self._held = True

    def go(self, runs: int = 1) -> None:
        """Release so many runs."""
        self._permits.release(runs)

    def let_all_go(self) -> None:
        """Release all runs, the later ones too."""
        self._held = False
        self.go(1000)

    def run(self, names, feeds, options=None) -> list[Array]:
        """Run the fake graph, as ONNX Runtime does."""
        self.ran.append(dict(feeds))
        self.threads.append(threading.current_thread().name)
        self.started.put(None)
        while self._held and not self._permits.acquire(timeout=0.005):
            if options is not None and options.terminate and not self.deaf:
                self.terminated.set()
                raise RuntimeError("terminated")
        if self.poison is not None and (feeds["hidden"] == self.poison).any():
            raise self.error("/secret: node 7")
        return [self._result(feeds)]

    def _result(self, feeds) -> Array:
        """Outputs that depend on every input which a wrong merge could mix up."""
        sums = feeds["hidden"].sum(axis=1)
        if self.task == "target_log_prob":
            return sums[feeds["row"]] * 1000 + feeds["target"]
        if self.task == "top_k":
            return np.repeat(sums[:, None], int(feeds["k"][0]), axis=1)
        return sums

    async def begun(self) -> None:
        """Wait until one more run has begun."""
        await asyncio.to_thread(self.started.get, True, PATIENCE)


class FakeMetrics:
    """Records the metrics of an engine."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, int, int]] = []
        self.why: Counter[str] = Counter()

    def batch(self, lane: str, rows: int, requests: int) -> None:
        """Record a batch."""
        self.batches.append((str(lane), rows, requests))

    def unanswered(self, lane: str, why: str) -> None:
        """Record a request that was rejected, cancelled or expired."""
        self.why[why] += 1


def held(task: str = "log_probs") -> Session:
    """A session of a task whose runtime is held."""
    graph = Graph(file="fake.onnx", inputs=_INPUTS[task], outputs=_INPUTS[task][:1])
    return Session(task, graph, Held(task))


def rows(session: Session, *values: float, cost: int = 2**22, **told) -> GraphCall:
    """A call with a row of [value, 0] for each value."""
    hidden = np.array([[value, 0] for value in values], dtype=np.float32)
    feeds = {"hidden": hidden, **{name: told.pop(name) for name in ("k",) if name in told}}
    return _call(session, feeds, len(values), cost * len(values), **told)


def _call(session: Session, feeds, num_rows: int, cost: int, **told) -> GraphCall:
    num_bytes = call_bytes(feeds, told.get("values", 0))
    return GraphCall(session, feeds, num_rows, cost, num_bytes=num_bytes, **told)


def pairs(session: Session, values, row, target, cost: int = 2**22, **told) -> GraphCall:
    """A call of target_log_prob with these pairs."""
    feeds = rows(session, *values).feeds | {"row": np.array(row), "target": np.array(target)}
    return _call(session, feeds, len(values), cost * len(row), **told)


async def begun(engine: Engine, call: GraphCall) -> "asyncio.Future[GraphResult]":
    """Submit a call whose run is held, so that later calls wait behind it."""
    call.session.runtime.hold()
    running = engine.submit(call)
    await call.session.runtime.begun()
    return running


def urgent(low: bool = False) -> dict[str, Priority]:
    """Arguments of a call with high or low priority."""
    return {"priority": Priority.BATCH if low else Priority.INTERACTIVE}


@pytest.fixture
def metrics() -> FakeMetrics:
    return FakeMetrics()


@pytest.fixture
def start(metrics) -> Callable[..., Engine]:
    engines = []

    def start(
        threads: int = 1,
        limits: QueueLimits = QueueLimits(1000, 10**6, 10**9),  # noqa: B008  it is frozen
        timeout: float = 60.0,
        **told,
    ) -> Engine:
        log = json_log("error")
        engines.append(Engine(threads, log, metrics, limits=limits, timeout=timeout, **told))
        return engines[-1]

    yield start
    for engine in engines:
        engine.close()


@pytest.fixture
def engine(start) -> Engine:
    return start()
