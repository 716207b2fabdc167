"""Reloads and unloads bundles in all workers, and collects their metrics.

The routes for operators call it, and `WorkerChannel` passes on the messages of other workers.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from .context import AppContext
from .errors import NotAlive
from .repository.daemon_thread import in_daemon_thread
from .resources import resident_bytes
from .workers.metrics_aggregation import Snapshot, page, snapshot


async def reload(context: AppContext, name: str) -> Mapping[str, str]:
    """Reload a bundle in all workers; return the reasons of versions that any worker refused."""
    refused = dict(await in_daemon_thread(context.repository.reload, name))
    if context.channel is not None:
        context.channel.persist_unloaded(context.repository.unloaded)
        for response in await context.channel.broadcast({"do": "reload", "name": name}):
            refused |= response["refused"]
    return refused


async def unload(context: AppContext, name: str) -> None:
    """Unload a bundle in all workers. Raises UnknownBundle if this one does not serve it."""
    await in_daemon_thread(context.repository.unload, name)
    if context.channel is not None:
        context.channel.persist_unloaded(context.repository.unloaded)
        await context.channel.broadcast({"do": "unload", "name": name})


async def metrics_page(context: AppContext) -> bytes:
    """Return the metrics of all workers in the text format of Prometheus."""
    _refresh_gauges(context)
    if context.channel is None:
        return context.metrics.page()
    collected = await context.channel.collect(persist_metrics(context))
    return await asyncio.to_thread(page, collected)


def persist_metrics(context: AppContext) -> Snapshot:
    """Store the metrics of this worker, so that its successor continues from them."""
    assert context.channel is not None
    _refresh_gauges(context)
    return context.channel.persist(snapshot(context.metrics.collected()))


async def handle_message(context: AppContext, message: dict[str, Any]) -> dict[str, Any]:
    """Handle a message of another worker or of the supervisor; return the response."""
    name = message.get("name", "")
    match message["do"]:
        case "count":
            persist_metrics(context)
        case "live":
            return {"alive": _is_alive(context)}
        case "reload":
            refused = await in_daemon_thread(context.repository.reload, name)
            return {"refused": dict(refused)}
        case "unload":
            if name in context.repository.names():
                await in_daemon_thread(context.repository.unload, name)
    return {}


def _refresh_gauges(context: AppContext) -> None:
    """Set the gauges to their current values."""
    context.metrics.ready(context.health.is_ready(context.repository))
    context.metrics.waiting(context.engine.waiting())
    context.metrics.bundles(
        (one.name, one.version, one.manifest.digest, one.manifest.family, one.device.name)
        for one in context.repository
    )
    context.jobs.update_metrics()
    context.metrics.memory(resident_bytes())


def _is_alive(context: AppContext) -> bool:
    try:
        context.health.expect_alive(context.engine)
    except NotAlive:
        return False
    return True
