"""Runs the graph calls of one request, and records them in the metrics and its context."""

from collections.abc import Awaitable
from time import perf_counter
from typing import Protocol

from starlette.types import Receive

from hsoftmax.service.engine import Engine, GraphCall, GraphResult
from hsoftmax.service.http.disconnect import cancel_on_disconnect
from hsoftmax.service.http.request_context import RequestContext
from hsoftmax.service.metrics import Metrics
from hsoftmax.service.statistics import RequestSeconds, Statistics

from .operation import Plan


class RunCall(Protocol):
    """Runs a graph call in the engine; a transport may cancel it when its client leaves."""

    def __call__(self, call: GraphCall) -> Awaitable[GraphResult]: ...


async def run_while_connected(call: GraphCall, engine: Engine, receive: Receive) -> GraphResult:
    """Run a call, and cancel it if the client disconnects.

    Raises:
        ServiceError: the call could not be run.
        ClientDisconnect: the client disconnected.
    """
    if engine.is_small(call):  # watching for a disconnect would cost more than the call
        return engine.run_inline(call)
    return await cancel_on_disconnect(receive, engine.submit(call))


def record_call(
    plan: Plan,
    result: GraphResult,
    route: str,
    metrics: Metrics,
    statistics: Statistics,
    request_context: RequestContext,
) -> None:
    """Record a call of a plan in the metrics, the statistics and the context of its request."""
    request_context.queued += result.queued
    request_context.computed += result.computed
    request_context.computed_at = perf_counter()
    names = plan.session.output_names
    metrics.computed(route, request_context.model, plan.rows, result.queued, result.computed)
    if "blocks" in names:
        blocks = result.arrays[names.index("blocks")]
        metrics.blocks_opened(request_context.model, int(blocks.sum()))
    alone = [(plan.rows, result.computed)]
    executions = alone if result.batches is None else result.batches
    statistics.executed(request_context.model, request_context.version, executions)


def record_success(statistics: Statistics, request_context: RequestContext) -> None:
    """Count a request whose outputs are converted."""
    now = perf_counter()
    seconds = RequestSeconds(
        total=now - request_context.started,
        queue=request_context.queued + request_context.encoder_queued,
        compute=request_context.computed + request_context.encoder_computed,
        output=now - (request_context.computed_at or now),
    )
    statistics.succeeded(
        request_context.model, request_context.version, request_context.rows, seconds
    )


def record_failure(statistics: Statistics, request_context: RequestContext) -> None:
    """Count a request that gets an error, if it has found its bundle."""
    if request_context.model:
        seconds = perf_counter() - request_context.started
        statistics.failed(request_context.model, request_context.version, seconds)
