"""Creates load over gRPC on its own core: one process, a call at a time on each connection.

    python -m benchmarks.http.grpc_load PORT MESSAGES CONNECTIONS SECONDS

MESSAGES is a file of the serialized ModelInferRequests, which are sent in turn as they are.
Responses are counted and not parsed. Connections beyond 32 share channels, as calls at the same
time on one channel do in any client.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import grpc
import msgspec

from .servers import LOAD_CORE
from .wrk import Load

_METHOD = "/inference.GRPCInferenceService/ModelInfer"
_MAX_CHANNELS = 32
_OPTIONS = [("grpc.use_local_subchannel_pool", 1)]  # else equal channels share a connection


def run(port: int, messages: Sequence[bytes], *, connections: int, seconds: float) -> Load:
    """Send the messages from another process; return its figures."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(msgspec.msgpack.encode(list(messages)))
        file.flush()
        command = ["taskset", "-c", str(LOAD_CORE), sys.executable, "-m", __name__]
        arguments = [str(port), file.name, str(connections), str(seconds)]
        ran = subprocess.run([*command, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return Load(**json.loads(ran.stdout))


async def _load(port: int, messages: Sequence[bytes], connections: int, seconds: float) -> Load:
    count = min(connections, _MAX_CHANNELS)
    channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}", _OPTIONS) for _ in range(count)]
    calls = [channels[i % count].unary_unary(_METHOD) for i in range(connections)]
    await asyncio.gather(*(call(messages[0], wait_for_ready=True) for call in calls))
    latencies: list[float] = []
    errors = 0
    started = time.perf_counter()
    end = started + seconds

    async def send_until_end(call: grpc.aio.UnaryUnaryMultiCallable, turn: int) -> None:
        nonlocal errors
        while (sent := time.perf_counter()) < end:
            try:
                await call(messages[turn % len(messages)])
            except grpc.RpcError:
                errors += 1
            latencies.append(time.perf_counter() - sent)
            turn += connections

    await asyncio.gather(*(send_until_end(call, i) for i, call in enumerate(calls)))
    took = time.perf_counter() - started
    await asyncio.gather(*(channel.close() for channel in channels))
    latencies.sort()
    at = [latencies[int(part * (len(latencies) - 1))] * 1e3 for part in (0.5, 0.99)]
    return Load(connections, len(latencies), len(latencies) / took, *at, errors)


def main() -> None:
    port, file, connections, seconds = sys.argv[1:]
    messages = msgspec.msgpack.decode(Path(file).read_bytes(), type=list[bytes])
    result = asyncio.run(_load(int(port), messages, int(connections), float(seconds)))
    print(json.dumps(result.as_json()))


if __name__ == "__main__":
    main()
