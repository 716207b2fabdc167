"""Messages and shared memory between the workers of one service.

Each worker listens on a socket in a folder that only this user can enter; a message is one line of
JSON. A worker's metrics and statistics are kept in shared records, so that its successor continues
from them and no counter ever falls. The control module and the supervisor call it.
"""

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import msgspec

from hsoftmax.service.statistics import add_up

from .decisions import Action, Decisions, add_decision, read_decisions
from .descriptor import Descriptor
from .metrics_aggregation import Snapshot, aggregate, only_gauges, without_gauges
from .shared_buckets import SharedBuckets
from .shared_record import SharedRecord
from .shared_rollouts import SharedRollouts

_REQUEST_TIMEOUT_S = 5.0
CHANGE_TIMEOUT_S = 600.0  # for a change, which may load a bundle
_MAX_LINE_BYTES = 2**26

Entry = dict[str, Any]  # of the statistics of one version
RequestHandler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


@dataclass(frozen=True)
class WorkerRecords:
    """The shared memory of all workers, and their common log.

    Attributes:
        log: the stream of the log; stderr itself is captured
        decisions: the operator's decisions
        rollouts: the rollouts that were accepted last
        buckets: the buckets of rate limits
        snapshots: the metrics of each worker
        statistics: the statistics of each worker
        start_error: the message of a worker that could not start
    """

    log: Descriptor
    decisions: SharedRecord
    rollouts: SharedRecord
    buckets: SharedRecord
    snapshots: tuple[SharedRecord, ...]
    statistics: tuple[SharedRecord, ...]
    start_error: SharedRecord

    @classmethod
    def create(cls, workers: int, log_descriptor: int = 2) -> Self:
        """Create the records of so many workers."""
        return cls(
            log=Descriptor(os.dup(log_descriptor)),
            decisions=SharedRecord.create(),
            rollouts=SharedRecord.create(),
            buckets=SharedRecord.create(),
            snapshots=tuple(SharedRecord.create() for _ in range(workers)),
            statistics=tuple(SharedRecord.create() for _ in range(workers)),
            start_error=SharedRecord.create(),
        )

    def close(self) -> None:
        shared = (self.decisions, self.rollouts, self.buckets, *self.snapshots, *self.statistics)
        for record in (self.log, *shared, self.start_error):
            record.close()


class WorkerChannel:
    """One worker's channel to the other workers.

    Attributes:
        rollouts: the rollouts that were accepted last, of all workers
        buckets: the buckets of rate limits, of all workers
        followed: the decisions that this worker has carried out
        following: held while it carries out others
    """

    def __init__(self, folder: Path, records: WorkerRecords, slot: int) -> None:
        self.slot = slot
        self.rollouts = SharedRollouts(records.rollouts)
        self.buckets = SharedBuckets(records.buckets)
        self.followed = read_decisions(records.decisions)
        self.following = asyncio.Lock()
        self._folder = folder
        self._records = records
        self._others = [other for other in range(len(records.snapshots)) if other != slot]
        self._server: asyncio.Server | None = None
        self._accumulated = without_gauges(self._read_snapshot(slot))
        self._accumulated_statistics = self._read_statistics(slot)

    @property
    def decisions(self) -> Decisions:
        """The decisions that every worker follows."""
        return read_decisions(self._records.decisions)

    def decide(self, name: str, action: Action) -> None:
        """Record a decision for all workers, and those that start later."""
        add_decision(self._records.decisions, name, action)

    async def listen(self, handle: RequestHandler) -> None:
        """Answer the messages of other workers until `close`."""
        path = _socket_path(self._folder, self.slot)
        path.unlink(missing_ok=True)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError, ValueError):
                response = await handle(json.loads(await reader.readline()))
                writer.write(json.dumps(response).encode() + b"\n")
                await writer.drain()
            writer.close()

        self._server = await asyncio.start_unix_server(serve, path)

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    def persist(self, snapshot: Snapshot) -> Snapshot:
        """Store a snapshot for a successor; return it with the counts of predecessors added."""
        counted = without_gauges(aggregate({"before": self._accumulated, "now": snapshot}))
        whole = Snapshot([*only_gauges(snapshot).families, *counted.families])
        self._records.snapshots[self.slot].write(msgspec.json.encode(whole))
        return whole

    def persist_statistics(self, entries: list[Entry]) -> list[Entry]:
        """Store statistics for a successor; return them with those of predecessors added."""
        whole = add_up([*self._accumulated_statistics, *entries])
        self._records.statistics[self.slot].write(msgspec.json.encode(whole))
        return whole

    async def collect_statistics(self, own: list[Entry]) -> list[Entry]:
        """The statistics of all workers, an entry for each worker and version."""
        await self._persist_others()
        return [*own, *(one for slot in self._others for one in self._read_statistics(slot))]

    async def collect(self, own: Snapshot) -> Snapshot:
        """The metrics of all workers together.

        A worker that is being replaced counts with its last stored snapshot.
        """
        await self._persist_others()
        snapshots = {str(slot): self._read_snapshot(slot) for slot in self._others}
        return aggregate({str(self.slot): own} | snapshots)

    async def broadcast(
        self, message: dict[str, Any], timeout: float = CHANGE_TIMEOUT_S
    ) -> dict[int, dict[str, Any]]:
        """Send a message to all other workers; return the responses of those that answer."""
        requests = (self.request(slot, message, timeout) for slot in self._others)
        responses = zip(self._others, await asyncio.gather(*requests), strict=True)
        return {slot: one for slot, one in responses if one is not None}

    async def request(
        self, slot: int, message: dict[str, Any], timeout: float = _REQUEST_TIMEOUT_S
    ) -> dict[str, Any] | None:
        """Send a message to one worker; return its response, or None if it does not answer."""
        with suppress(OSError, ValueError, TimeoutError):
            async with asyncio.timeout(timeout):
                path = _socket_path(self._folder, slot)
                reader, writer = await asyncio.open_unix_connection(path, limit=_MAX_LINE_BYTES)
                writer.write(json.dumps(message).encode() + b"\n")
                response: dict[str, Any] = json.loads(await reader.readline())
                writer.close()
                return response
        return None

    async def _persist_others(self) -> None:
        """Make the other workers store their counts."""
        await asyncio.gather(*(self.request(slot, {"do": "count"}) for slot in self._others))

    def _read_statistics(self, slot: int) -> list[Entry]:
        value = self._records.statistics[slot].read()
        return msgspec.json.decode(value, type=list[Entry]) if value else []

    def _read_snapshot(self, slot: int) -> Snapshot:
        value = self._records.snapshots[slot].read()
        return msgspec.json.decode(value, type=Snapshot) if value else Snapshot([])


def request_liveness(folder: Path, slot: int) -> bool | None:
    """Ask a worker if it is alive, and wait for the response; None if there is none."""
    with suppress(OSError, ValueError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_REQUEST_TIMEOUT_S)
        connection.connect(str(_socket_path(folder, slot)))
        connection.sendall(b'{"do": "live"}\n')
        with connection.makefile() as lines:
            return bool(json.loads(lines.readline())["alive"])
    return None


def _socket_path(folder: Path, slot: int) -> Path:
    return folder / f"{slot}.socket"
