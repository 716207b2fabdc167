"""Changes to what is served, in this process and in all its peers."""

import asyncio
from collections.abc import Mapping
from typing import Any

from .context import AppContext
from .errors import NotAlive
from .repository.daemon_thread import in_daemon_thread
from .resources import resident_bytes
from .workers.metrics_aggregation import Snapshot, page, snapshot


async def reload(context: AppContext, name: str) -> Mapping[str, str]:
    """Reload a bundle everywhere; what was refused anywhere."""
    refused = dict(await in_daemon_thread(context.repository.reload, name))
    if context.peers is not None:
        context.peers.persist_unloaded(context.repository.unloaded)
        for told in await context.peers.broadcast({"do": "reload", "name": name}):
            refused |= told["refused"]
    return refused


async def unload(context: AppContext, name: str) -> None:
    """Unload a bundle everywhere. Raises UnknownBundle if it is not served here."""
    await in_daemon_thread(context.repository.unload, name)
    if context.peers is not None:
        context.peers.persist_unloaded(context.repository.unloaded)
        await context.peers.broadcast({"do": "unload", "name": name})


async def metrics_page(context: AppContext) -> bytes:
    """What all workers have counted, in Prometheus' text format."""
    _look(context)
    if context.peers is None:
        return context.metrics.page()
    whole = await context.peers.collect(keep(context))
    return await asyncio.to_thread(page, whole)


def keep(context: AppContext) -> Snapshot:
    """Keep what was counted for a successor."""
    assert context.peers is not None
    _look(context)
    return context.peers.persist(snapshot(context.metrics.collected()))


async def answer_peer(context: AppContext, question: dict[str, Any]) -> dict[str, Any]:
    """What another worker, or the process above them, asks."""
    name = question.get("name", "")
    match question["do"]:
        case "count":
            keep(context)
        case "live":
            return {"alive": _is_alive(context)}
        case "reload":
            refused = await in_daemon_thread(context.repository.reload, name)
            return {"refused": dict(refused)}
        case "unload":
            if name in context.repository.names():
                await in_daemon_thread(context.repository.unload, name)
    return {}


def _look(context: AppContext) -> None:
    """Set the gauges to what is the case now."""
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
