"""The workers of one service, to each other: what was counted, what is loaded, who is stuck.

Each listens on a socket in a folder that only this user can enter, one JSON line a question. What a
worker has counted is kept beside it, so that its successor goes on from there and no counter ever
falls.
"""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from .metrics_aggregation import Snapshot, added, carried, gauges

_PATIENCE = 5.0  # seconds for an answer
_CHANGING = 600.0  # and for one to a change, which may load a bundle
_LINE = 2**26  # bytes

OperationResponse = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class WorkerChannel:
    """One worker's place among the others."""

    def __init__(self, folder: Path, slot: int, workers: int) -> None:
        self.slot = slot
        self._folder = folder
        self._others = [other for other in range(workers) if other != slot]
        self._unloaded = folder / "unloaded.json"
        self._server: asyncio.Server | None = None
        self._before = carried(self._read(slot))

    @property
    def unloaded(self) -> frozenset[str]:
        """The bundles that all were told to unload."""
        try:
            return frozenset(json.loads(self._unloaded.read_bytes()))
        except OSError:  # none, until now
            return frozenset()

    def remember(self, unloaded: frozenset[str]) -> None:
        """Let workers that are yet to come know what they need not load."""
        _replace(self._unloaded, json.dumps(sorted(unloaded)).encode())

    async def listen(self, answer: OperationResponse) -> None:
        """Answer the others until `close`."""
        path = _socket(self._folder, self.slot)
        path.unlink(missing_ok=True)

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError, ValueError):
                told = await answer(json.loads(await reader.readline()))
                writer.write(json.dumps(told).encode() + b"\n")
                await writer.drain()
            writer.close()

        self._server = await asyncio.start_unix_server(connected, path)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    def keep(self, counted: Snapshot) -> Snapshot:
        """Keep this for a successor; what was counted with what predecessors had."""
        counting = carried(added({"before": self._before, "now": counted}))
        whole = Snapshot([*gauges(counted).families, *counting.families])
        _replace(_kept(self._folder, self.slot), msgspec.json.encode(whole))
        return whole

    async def counted(self, own: Snapshot) -> Snapshot:
        """By all workers; what one that is just being replaced had counted is in it."""
        await asyncio.gather(*(self.ask(slot, {"do": "count"}) for slot in self._others))
        kept = {str(slot): self._read(slot) for slot in self._others}
        return added({str(self.slot): own} | kept)

    async def tell(self, question: dict[str, Any]) -> list[dict[str, Any]]:
        """Ask all others; the answers of those who are there."""
        asked = (self.ask(slot, question, _CHANGING) for slot in self._others)
        told = await asyncio.gather(*asked)
        return [one for one in told if one is not None]

    async def ask(
        self, slot: int, question: dict[str, Any], patience: float = _PATIENCE
    ) -> dict[str, Any] | None:
        """One other's answer, None if it is not there."""
        with suppress(OSError, ValueError, TimeoutError):
            async with asyncio.timeout(patience):
                path = _socket(self._folder, slot)
                reader, writer = await asyncio.open_unix_connection(path, limit=_LINE)
                writer.write(json.dumps(question).encode() + b"\n")
                told: dict[str, Any] = json.loads(await reader.readline())
                writer.close()
                return told
        return None

    def _read(self, slot: int) -> Snapshot:
        try:
            return msgspec.json.decode(_kept(self._folder, slot).read_bytes(), type=Snapshot)
        except (OSError, msgspec.DecodeError):
            return Snapshot([])


def ask_whether_alive(folder: Path, slot: int) -> bool | None:
    """Whether a worker says that it is; None if it does not say. Waits for it, for a while."""
    with suppress(OSError, ValueError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_PATIENCE)
        connection.connect(str(_socket(folder, slot)))
        connection.sendall(b'{"do": "live"}\n')
        with connection.makefile() as lines:
            return bool(json.loads(lines.readline())["alive"])
    return None


def _socket(folder: Path, slot: int) -> Path:
    return folder / f"{slot}.socket"


def _kept(folder: Path, slot: int) -> Path:
    return folder / f"{slot}.json"


def _replace(path: Path, content: bytes) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.rename(path)
