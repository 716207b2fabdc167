"""A stream's chunks through the engine: a lane that is full makes them wait, not fail."""

import asyncio
from collections.abc import Callable

from bundle import Graph
from models.arrays import Array, Float32
from scoring import Asked, Flaw, Task, feeds
from scoring.stream import RunAsync
from service.engine import Call, Engine, Outputs
from service.errors import DeadlineExceeded, InferenceFailed, Overloaded
from service.questions.sample import noise
from service.questions.work import full_work, path_work
from service.served import Served
from service.terms import Terms

from .pulse import Pulse

_SOON, _LATER = 0.02, 0.25  # seconds until a full lane is tried again

Note = Callable[[Outputs, Asked], None]


def runner(engine: Engine, served: Served, terms: Terms, pulse: Pulse, note: Note) -> RunAsync:
    """Runs what is asked on these terms; `note` is told of every run."""
    turn = asyncio.Lock()  # who came first is the next that a full lane takes

    async def run(asked: Asked, first_row: int) -> list[Array]:
        call = call_of(asked, first_row, served, terms)
        pulse.working += 1
        try:
            outputs = engine.run_now(call)
            if outputs is None:
                outputs = await (await _admitted(engine, call, turn))
        except (InferenceFailed, DeadlineExceeded) as error:
            raise Flaw(error.code, str(error)) from None  # type: ignore[arg-type]
        finally:
            pulse.working -= 1
            pulse.beat()
        note(outputs, asked)
        return outputs.arrays

    return run


def call_of(asked: Asked, first_row: int, served: Served, terms: Terms) -> Call:
    """One run of the bundle's graph."""
    session = served.session(asked.graph)
    return Call(
        session=session,
        feeds=_feeds(asked, first_row, session.graph),
        rows=len(asked.hidden),
        work=_work(asked, served),
        values=_values(asked, served),
        priority=terms.priority,
        timeout=terms.timeout,
    )


async def _admitted(engine: Engine, call: Call, turn: asyncio.Lock) -> asyncio.Future[Outputs]:
    """The call's future, once there is room for it."""
    wait = _SOON
    async with turn:
        while True:
            try:
                return engine.submit(call)
            except Overloaded:
                await asyncio.sleep(wait)
                wait = min(2 * wait, _LATER)


def _feeds(asked: Asked, first_row: int, graph: Graph) -> dict[str, Array]:
    if asked.graph != "sample":
        return feeds(asked, graph)
    per_sample = int(next(port.shape[-1] for port in graph.inputs if port.name == "noise"))
    return {"hidden": asked.hidden, "noise": _noise(asked, first_row, per_sample)}


def _noise(asked: Asked, first_row: int, per_sample: int) -> Float32:
    """The rows' part of the noise that one query of all rows would get for this seed.

    So that a draw depends on the seed and on the row's number, not on how the bytes came.
    """
    task: Task = asked.task
    each = task.num_samples * per_sample
    return noise(task.seed, len(asked.hidden), task.num_samples, per_sample, first_row * each)


def _work(asked: Asked, served: Served) -> int:
    rows, task = len(asked.hidden), asked.task
    match asked.graph:
        case "target_log_prob":
            return path_work(served, len(asked.row))
        case "sample":
            return path_work(served, rows * task.num_samples)
        case "top_k" if task.max_blocks:
            return min(path_work(served, rows * task.max_blocks), full_work(served, rows))
        case _:
            return full_work(served, rows)


def _values(asked: Asked, served: Served) -> int:
    rows = len(asked.hidden)
    match asked.graph:
        case "target_log_prob":
            return len(asked.row)
        case "sample":
            return rows * asked.task.num_samples
        case "top_k":
            return rows * asked.task.k
        case _:
            return rows * served.num_targets
