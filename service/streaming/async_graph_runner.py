"""Runs the graphs of a stream on the engine. A full queue makes its calls wait, not fail."""

import asyncio
from collections.abc import Callable

from hsoftmax.models.arrays import Array, Float32
from hsoftmax.models.seeded_noise import noise
from hsoftmax.runtime.sessions import Feeds, Session
from hsoftmax.scoring import GraphRequest, RowError, graph_inputs, needs_graph
from hsoftmax.scoring.stream import AsyncGraphRunner
from hsoftmax.service.access.rate_limits import Quota
from hsoftmax.service.engine import Engine, GraphCall, GraphResult
from hsoftmax.service.errors import DeadlineExceeded, InferenceFailed, Overloaded
from hsoftmax.service.http.request_options import RequestOptions
from hsoftmax.service.inference.scoring_calls import build_graph_call
from hsoftmax.service.repository.loaded_bundle import LoadedBundle

from .activity import Activity

# Before a call that found its lane full is submitted again; doubled after each attempt.
_MIN_RETRY_INTERVAL_S = 0.02
_MAX_RETRY_INTERVAL_S = 0.25
_MAX_QUOTA_INTERVAL_S = 1.0  # other requests may take rows meanwhile

GraphResultCallback = Callable[[GraphResult, GraphRequest], None]


def build_graph_runner(
    engine: Engine,
    loaded: LoadedBundle,
    options: RequestOptions,
    activity: Activity,
    on_result: GraphResultCallback,
    quota: Quota | None = None,
) -> AsyncGraphRunner:
    """Build the graph runner of one stream.

    It submits every call with `options`, and passes each result to `on_result`. Where
    the limits on rows of the `quota` are reached, calls wait.
    """
    admission = asyncio.Lock()  # a full lane admits waiting calls in order

    async def run(request: GraphRequest, first_row: int) -> list[Array]:
        if not needs_graph(request):
            return await hidden_of(request)
        inputs = _feeds(request, first_row, loaded.session(request.graph))
        call = build_graph_call(request, loaded, inputs, options)
        activity.pending_calls += 1
        try:
            if quota is not None:
                await _take_rows_in_time(quota, len(request.hidden), admission)
            if engine.is_small(call):
                outputs = engine.run_inline(call)
            else:
                outputs = await (await _submit_when_admitted(engine, call, admission))
        except (InferenceFailed, DeadlineExceeded) as error:
            raise RowError(error.code, str(error)) from None  # type: ignore[arg-type]
        finally:
            activity.pending_calls -= 1
            activity.touch()
        on_result(outputs, request)
        return outputs.arrays

    async def hidden_of(request: GraphRequest) -> list[Array]:
        if quota is not None:
            await _take_rows_in_time(quota, len(request.hidden), admission)
        return [request.hidden]

    return run


async def _take_rows_in_time(quota: Quota, rows: int, admission: asyncio.Lock) -> None:
    """Wait until the limits on rows have room, then take the rows."""
    async with admission:
        while (seconds := quota.seconds_until_row()) > 0:
            await asyncio.sleep(min(seconds, _MAX_QUOTA_INTERVAL_S))
        quota.take_rows(rows)


async def _submit_when_admitted(
    engine: Engine, call: GraphCall, admission: asyncio.Lock
) -> asyncio.Future[GraphResult]:
    """Submit the call, again and again while its lane is full. Return its future."""
    interval = _MIN_RETRY_INTERVAL_S
    async with admission:
        while True:
            try:
                return engine.submit(call)
            except Overloaded:
                await asyncio.sleep(interval)
                interval = min(2 * interval, _MAX_RETRY_INTERVAL_S)


def _feeds(request: GraphRequest, first_row: int, session: Session) -> Feeds:
    if request.graph != "sample":
        return graph_inputs(request, session.graph)
    per_sample = session.graph.noise_per_sample
    return {"hidden": request.hidden, "noise": _noise(request, first_row, per_sample)}


def _noise(request: GraphRequest, first_row: int, per_sample: int) -> Float32:
    """Return the rows' part of the noise that a single query of all rows would use.

    A draw therefore depends on the seed and the row's number, not on how the body was split.
    """
    task = request.task
    values_per_row = task.num_samples * per_sample
    return noise(
        task.seed, len(request.hidden), task.num_samples, per_sample, first_row * values_per_row
    )
