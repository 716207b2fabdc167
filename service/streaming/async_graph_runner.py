"""A stream's chunks through the engine: a lane that is full makes them wait, not fail."""

import asyncio
from collections.abc import Callable

from hsoftmax.models.arrays import Array, Float32
from hsoftmax.models.sampling import noise
from hsoftmax.runtime.sessions import Feeds, Session
from hsoftmax.scoring import GraphRequest, RowError, graph_inputs
from hsoftmax.scoring.stream import AsyncGraphRunner
from hsoftmax.service.engine import Engine, GraphCall, GraphResult
from hsoftmax.service.errors import DeadlineExceeded, InferenceFailed, Overloaded
from hsoftmax.service.http.request_options import RequestOptions
from hsoftmax.service.inference.scoring_calls import build_graph_call
from hsoftmax.service.repository.loaded_bundle import LoadedBundle

from .activity import Activity

_SOON, _LATER = 0.02, 0.25  # seconds until a full lane is tried again

Note = Callable[[GraphResult, GraphRequest], None]


def runner(
    engine: Engine, served: LoadedBundle, options: RequestOptions, pulse: Activity, note: Note
) -> AsyncGraphRunner:
    """Runs what is asked on these terms; `note` is told of every run."""
    turn = asyncio.Lock()  # who came first is the next that a full lane takes

    async def run(asked: GraphRequest, first_row: int) -> list[Array]:
        inputs = _feeds(asked, first_row, served.session(asked.graph))
        call = build_graph_call(asked, served, inputs, options)
        pulse.working += 1
        try:
            if engine.is_small(call):
                outputs = engine.run_inline(call)
            else:
                outputs = await (await _admitted(engine, call, turn))
        except (InferenceFailed, DeadlineExceeded) as error:
            raise RowError(error.code, str(error)) from None  # type: ignore[arg-type]
        finally:
            pulse.working -= 1
            pulse.beat()
        note(outputs, asked)
        return outputs.arrays

    return run


async def _admitted(
    engine: Engine, call: GraphCall, turn: asyncio.Lock
) -> asyncio.Future[GraphResult]:
    """The call's future, once there is room for it."""
    wait = _SOON
    async with turn:
        while True:
            try:
                return engine.submit(call)
            except Overloaded:
                await asyncio.sleep(wait)
                wait = min(2 * wait, _LATER)


def _feeds(asked: GraphRequest, first_row: int, session: Session) -> Feeds:
    if asked.graph != "sample":
        return graph_inputs(asked, session.graph)
    per_sample = session.graph.noise_per_sample
    return {"hidden": asked.hidden, "noise": _noise(asked, first_row, per_sample)}


def _noise(asked: GraphRequest, first_row: int, per_sample: int) -> Float32:
    """The rows' part of the noise that one query of all rows would get for this seed.

    So that a draw depends on the seed and on the row's number, not on how the bytes came.
    """
    task = asked.task
    each = task.num_samples * per_sample
    return noise(task.seed, len(asked.hidden), task.num_samples, per_sample, first_row * each)
