"""Replaces the rows of a query, texts or inputs by name, by hidden states.

The endpoints of the operations and of the Open Inference Protocol call it.
"""

from typing import Any

import msgspec

from hsoftmax.service.errors import InferenceFailed
from hsoftmax.service.http.request_context import RequestContext
from hsoftmax.service.http.request_options import RequestOptions
from hsoftmax.service.repository.loaded_bundle import LoadedBundle
from hsoftmax.service.settings import Settings

from .graph_calls import RunCall
from .named_inputs import cannot_run, plan_in_turn, read_named_inputs
from .texts import TextQueue, read_texts


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
