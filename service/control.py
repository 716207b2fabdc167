"""Reloads and unloads bundles and sets rollouts in all workers, and collects their metrics.

The routes for operators call it, and `WorkerChannel` passes on the messages of other workers.

With several workers a change is recorded as a decision first. Then every worker follows it: at once
if it gets the message, else within a second. So the workers agree even if one of them, or the one
that got the request, fails half-way.
"""

import asyncio
import os
import signal
from collections.abc import Mapping
from typing import Any

from .context import AppContext
from .errors import NotAlive
from .repository.daemon_thread import in_daemon_thread
from .repository.rollout import Rollout
from .repository.rollouts import ActiveRollout
from .resources import resident_bytes
from .workers.channel import CHANGE_TIMEOUT_S, WorkerChannel
from .workers.decisions import Action, not_followed
from .workers.metrics_aggregation import Snapshot, page, snapshot

FOLLOW_INTERVAL_S = 1.0
_ROLLOUT_TIMEOUT_S = 5.0

WorkerState = dict[str, Any]  # of one bundle: its digests by version, and its refused versions


async def reload(context: AppContext, name: str) -> Mapping[str, str]:
    """Reload a bundle in all workers; return the reasons of versions that are refused."""
    if context.channel is None:
        return await in_daemon_thread(context.repository.reload, name)
    states = await _decide(context, context.channel, name, "reload")
    return await _retry_refused(context, context.channel, name, states)


async def unload(context: AppContext, name: str) -> None:
    """Unload a bundle in all workers. Raises UnknownBundle if this one does not serve it."""
    if context.channel is None:
        await in_daemon_thread(context.repository.unload, name)
        return
    context.repository.find(name)
    await _decide(context, context.channel, name, "unload")


async def set_rollout(context: AppContext, name: str, rollout: Rollout) -> ActiveRollout:
    """Store a rollout and let all workers follow it. Raises ServiceError."""
    active = await in_daemon_thread(context.repository.set_rollout, name, rollout)
    await _tell_rollouts(context)
    return active


async def roll_back(context: AppContext, name: str, version: str | None) -> ActiveRollout:
    """Send all requests to one version, in all workers. Raises ServiceError."""
    active = await in_daemon_thread(context.repository.roll_back, name, version)
    await _tell_rollouts(context)
    return active


async def _tell_rollouts(context: AppContext) -> None:
    """Make the other workers read the rollouts now; one that does not answer does within 1 s."""
    if context.channel is not None:
        await context.channel.broadcast({"do": "rollouts"}, _ROLLOUT_TIMEOUT_S)


async def follow(context: AppContext) -> None:
    """Carry out the decisions that this worker has not carried out yet, each once."""
    channel, repository = context.channel, context.repository
    assert channel is not None
    async with channel.following:
        for name, decision in not_followed(channel.decisions, channel.followed).items():
            change = repository.reload if decision.action == "reload" else repository.withdraw
            await in_daemon_thread(change, name)
            channel.followed = {**channel.followed, name: decision}


async def keep_following(context: AppContext) -> None:
    """Follow the decisions of other workers until cancelled; a failure is tried again."""
    failing = False
    while True:
        await asyncio.sleep(FOLLOW_INTERVAL_S)
        try:
            await follow(context)
        except Exception:
            if not failing:  # one line for each series of failures
                context.log.exception("follow_failed")
            failing = True
        else:
            failing = False


async def _decide(
    context: AppContext, channel: WorkerChannel, name: str, action: Action
) -> dict[int, WorkerState]:
    """Record a decision and let all workers follow it; return the state of each that answers."""
    channel.decide(name, action)
    await follow(context)
    others = await channel.broadcast({"do": "follow", "name": name})
    return {channel.slot: _state(context, name), **others}


async def _retry_refused(
    context: AppContext, channel: WorkerChannel, name: str, states: dict[int, WorkerState]
) -> Mapping[str, str]:
    """Make workers that refuse a version that another one serves try again, then replace them.

    A fresh process has neither a lack of memory nor of descriptors. Returns the versions that are
    refused by all.
    """
    decided = min(states.values(), key=lambda state: len(state["refused"]))
    for slot, state in states.items():
        if _differs(state, decided):
            again = await _request(context, channel, slot, {"do": "retry", "name": name})
            if again is None or _differs(again, decided):
                context.log.error("worker_differs", worker_slot=slot, model=name)
                await _request(context, channel, slot, {"do": "restart"})
    refused: Mapping[str, str] = decided["refused"]
    return refused


async def _request(
    context: AppContext, channel: WorkerChannel, slot: int, message: dict[str, Any]
) -> WorkerState | None:
    if slot == channel.slot:
        return await handle_message(context, message)
    return await channel.request(slot, message, CHANGE_TIMEOUT_S)


def _state(context: AppContext, name: str) -> WorkerState:
    served = {one.version: one.manifest.digest for one in context.repository if one.name == name}
    return {
        "served": served,
        "refused": dict(context.repository.refusals(name)),
    }


def _differs(one: WorkerState, other: WorkerState) -> bool:
    return bool(
        one["served"] != other["served"] or one["refused"].keys() != other["refused"].keys()
    )


async def statistics(context: AppContext) -> list[dict[str, Any]]:
    """Return the statistics of all workers, an entry for each worker and version."""
    if context.channel is None:
        return context.statistics.listed()
    return await context.channel.collect_statistics(_persist_statistics(context))


async def metrics_page(context: AppContext) -> bytes:
    """Return the metrics of all workers in the text format of Prometheus."""
    _refresh_gauges(context)
    if context.channel is None:
        return context.metrics.page()
    collected = await context.channel.collect(persist_counts(context))
    return await asyncio.to_thread(page, collected)


def _persist_statistics(context: AppContext) -> list[dict[str, Any]]:
    assert context.channel is not None
    return context.channel.persist_statistics(context.statistics.listed())


def persist_counts(context: AppContext) -> Snapshot:
    """Store metrics and statistics for a successor, which continues them; return the metrics."""
    assert context.channel is not None
    _persist_statistics(context)
    _refresh_gauges(context)
    return context.channel.persist(snapshot(context.metrics.collected()))


async def handle_message(context: AppContext, message: dict[str, Any]) -> dict[str, Any]:
    """Handle a message of another worker or of the supervisor; return the response."""
    name = message.get("name", "")
    match message["do"]:
        case "count":
            persist_counts(context)
        case "live":
            return {"alive": _is_alive(context)}
        case "follow":
            await follow(context)
            return _state(context, name)
        case "rollouts":
            await in_daemon_thread(context.repository.follow_rollouts)
        case "retry":
            await in_daemon_thread(context.repository.reload, name)
            return _state(context, name)
        case "restart":  # the supervisor starts a successor
            os.kill(os.getpid(), signal.SIGINT)
    return {}


def _refresh_gauges(context: AppContext) -> None:
    """Set the gauges to their current values."""
    context.metrics.ready(context.health.is_ready(context.repository))
    context.metrics.waiting(context.engine.waiting())
    context.metrics.start_models((one.name, one.version) for one in context.repository)
    context.metrics.bundles(
        (one.name, one.version, one.manifest.digest, one.manifest.family, one.device.name)
        for one in context.repository
    )
    context.metrics.tasks(
        (one.name, one.version, task, session.runtime_name, session.device)
        for one in context.repository
        for task, session in one.sessions.items()
    )
    context.jobs.update_metrics()
    context.metrics.memory(resident_bytes())


def _is_alive(context: AppContext) -> bool:
    try:
        context.health.expect_alive(context.engine)
    except NotAlive:
        return False
    return True
