"""Messages and shared files between the workers of one service.

Each worker listens on a socket in a folder that only this user can enter; a message is one line of
JSON. A worker's metrics are kept in a file there, so that its successor continues from them and no
counter ever falls. The control module and the supervisor call it.
"""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from .metrics_aggregation import Snapshot, aggregate, only_gauges, without_gauges

_REQUEST_TIMEOUT_S = 5.0
_CHANGE_TIMEOUT_S = 600.0  # for a change, which may load a bundle
_MAX_LINE_BYTES = 2**26

RequestHandler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class WorkerChannel:
    """One worker's channel to the other workers."""

    def __init__(self, folder: Path, slot: int, workers: int) -> None:
        self.slot = slot
        self._folder = folder
        self._others = [other for other in range(workers) if other != slot]
        self._unloaded = folder / "unloaded.json"
        self._server: asyncio.Server | None = None
        self._accumulated = without_gauges(self._read_snapshot(slot))

    @property
    def unloaded(self) -> frozenset[str]:
        """The names of bundles that every worker was told to unload."""
        try:
            return frozenset(json.loads(self._unloaded.read_bytes()))
        except OSError:  # nothing was unloaded yet
            return frozenset()

    def persist_unloaded(self, unloaded: frozenset[str]) -> None:
        """Store the unloaded bundles, so that workers that start later do not load them."""
        _replace(self._unloaded, json.dumps(sorted(unloaded)).encode())

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
        _replace(_snapshot_path(self._folder, self.slot), msgspec.json.encode(whole))
        return whole

    async def collect(self, own: Snapshot) -> Snapshot:
        """The metrics of all workers together.

        A worker that is being replaced counts with its last stored snapshot.
        """
        await asyncio.gather(*(self.request(slot, {"do": "count"}) for slot in self._others))
        snapshots = {str(slot): self._read_snapshot(slot) for slot in self._others}
        return aggregate({str(self.slot): own} | snapshots)

    async def broadcast(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        """Send a message to all other workers; return the responses of those that answer."""
        requests = (self.request(slot, message, _CHANGE_TIMEOUT_S) for slot in self._others)
        responses = await asyncio.gather(*requests)
        return [one for one in responses if one is not None]

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

    def _read_snapshot(self, slot: int) -> Snapshot:
        try:
            content = _snapshot_path(self._folder, slot).read_bytes()
            return msgspec.json.decode(content, type=Snapshot)
        except (OSError, msgspec.DecodeError):
            return Snapshot([])


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


def _snapshot_path(folder: Path, slot: int) -> Path:
    return folder / f"{slot}.json"


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_bytes(content)
    temporary.rename(path)
