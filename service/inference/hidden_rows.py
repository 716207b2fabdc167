"""Replaces the rows of a query by hidden states, and records the graph calls of a request.

The endpoints of the operations and of the Open Inference Protocol call it.
"""

from collections.abc import Awaitable
from time import perf_counter
from typing import Any, Protocol

import msgspec

from hsoftmax.service.engine import GraphCall, GraphResult
from hsoftmax.service.errors import InferenceFailed
from hsoftmax.service.http.request_context import RequestContext
from hsoftmax.service.http.request_options import RequestOptions
from hsoftmax.service.metrics import Metrics
from hsoftmax.service.repository.loaded_bundle import LoadedBundle
from hsoftmax.service.settings import Settings

from .named_inputs import cannot_run, plan_in_turn, read_named_inputs
from .operation import Plan
from .texts import TextQueue, read_texts


class RunCall(Protocol):
    """Runs a graph call in the engine; a transport may cancel it when its client leaves."""

    def __call__(self, call: GraphCall) -> Awaitable[GraphResult]: ...


async def with_hidden(
    query: Any,  # noqa: ANN401  of any operation
    bundle: LoadedBundle,
    settings: Settings,
    texts: TextQueue,
    options: RequestOptions,
    run_call: RunCall,
    request_context: RequestContext,
    *,
    isolated: bool,
) -> Any:  # noqa: ANN401
    """Return the query with hidden states in place of texts or of inputs by name.

    Raises:
        ServiceError: the rows do not fit the bundle, or a call failed.
    """
    inputs = await read_named_inputs(query, bundle, settings, texts.run)
    if inputs is None:
        return await read_texts(query, bundle, settings, texts)
    plan = await plan_in_turn(inputs, bundle, settings, options, texts.run, isolated=isolated)
    outputs = []
    for call in plan.calls:
        try:
            result = await run_call(call)
        except InferenceFailed:
            raise cannot_run(call) from None
        request_context.encoder_queued += result.queued
        request_context.encoder_computed += result.computed
        outputs.append(result.arrays)
    return msgspec.structs.replace(query, inputs=plan.hidden(outputs))


def record_call(
    plan: Plan, result: GraphResult, route: str, metrics: Metrics, request_context: RequestContext
) -> None:
    """Record a call of a plan in the metrics and in the context of its request."""
    request_context.queued, request_context.computed = result.queued, result.computed
    request_context.computed_at = perf_counter()
    names = plan.session.output_names
    metrics.computed(route, request_context.model, plan.rows, result.queued, result.computed)
    if "blocks" in names:
        blocks = result.arrays[names.index("blocks")]
        metrics.blocks_opened(request_context.model, int(blocks.sum()))
