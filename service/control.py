"""Changes to what is served, in this process and in all its peers."""

import asyncio
from collections.abc import Mapping
from typing import Any

from .context import Core
from .daemon_thread import in_daemon_thread
from .errors import NotAlive
from .resources import resident_bytes
from .workers.metrics_aggregation import Snapshot, page, snapshot


async def reload(core: Core, name: str) -> Mapping[str, str]:
    """Reload a bundle everywhere; what was refused anywhere."""
    refused = dict(await in_daemon_thread(core.repository.reload, name))
    if core.peers is not None:
        core.peers.remember(core.repository.unloaded)
        for told in await core.peers.tell({"do": "reload", "name": name}):
            refused |= told["refused"]
    return refused


async def unload(core: Core, name: str) -> None:
    """Unload a bundle everywhere. Raises UnknownBundle if it is not served here."""
    await in_daemon_thread(core.repository.unload, name)
    if core.peers is not None:
        core.peers.remember(core.repository.unloaded)
        await core.peers.tell({"do": "unload", "name": name})


async def metrics_page(core: Core) -> bytes:
    """What all workers have counted, in Prometheus' text format."""
    _look(core)
    if core.peers is None:
        return core.metrics.page()
    whole = await core.peers.counted(keep(core))
    return await asyncio.to_thread(page, whole)


def keep(core: Core) -> Snapshot:
    """Keep what was counted for a successor."""
    assert core.peers is not None
    _look(core)
    return core.peers.keep(snapshot(core.metrics.collected()))


async def answer_peer(core: Core, question: dict[str, Any]) -> dict[str, Any]:
    """What another worker, or the process above them, asks."""
    name = question.get("name", "")
    match question["do"]:
        case "count":
            keep(core)
        case "live":
            return {"alive": _is_alive(core)}
        case "reload":
            refused = await in_daemon_thread(core.repository.reload, name)
            return {"refused": dict(refused)}
        case "unload":
            if name in core.repository.names():
                await in_daemon_thread(core.repository.unload, name)
    return {}


def _look(core: Core) -> None:
    """Set the gauges to what is the case now."""
    core.metrics.ready(core.health.is_ready(core.repository))
    core.metrics.waiting(core.engine.waiting())
    core.metrics.bundles(
        (one.name, one.version, one.manifest.digest, one.manifest.family, one.device.name)
        for one in core.repository
    )
    core.jobs.count()
    core.metrics.memory(resident_bytes())


def _is_alive(core: Core) -> bool:
    try:
        core.health.expect_alive(core.engine)
    except NotAlive:
        return False
    return True
