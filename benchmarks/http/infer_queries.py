"""Measures `infer` of one row and one target with raw tensors, over HTTP and over gRPC.

Over HTTP the service and a lean ASGI app answer the same bytes under /v2 behind the service's
protocol class, with `wrk` as load. Over gRPC the service and a lean server of `grpc.aio` answer the
same message; the load is `grpc_load`, a client in Python that takes more processor time for a call
than the servers do. So requests a second over gRPC show what one such client gets, and `cpu_us`,
the server's processor time for a request, what the server costs. The bar is 0.75 of lean ASGI.
"""

import http.client
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from hsoftmax.service.grpc.messages import ModelInferRequest

from . import grpc_load, servers
from .bundles import HIDDEN, some_targets
from .servers import Server
from .target_queries import load
from .wrk import Post

CONCURRENCY = (1, 4, 16, 64, 256)
PATH = "/v2/models/random/infer"
OUTPUT = "target_prob"
OURS, LEAN = "hsoftmax", "lean ASGI"
OURS_GRPC, LEAN_GRPC = "hsoftmax, gRPC", "lean gRPC"
_HEADER = "inference-header-content-length"
_RAW = "application/octet-stream"

Rows = list[dict[str, Any]]
Figures = dict[str, float]


@dataclass(frozen=True)
class Requests:
    """Queries with equal content for HTTP and for gRPC.

    Attributes:
        head: the JSON of every body
        posts: path and body, which is the JSON and two raw tensors
        messages: serialized ModelInferRequests
    """

    head: bytes
    posts: Sequence[Post]
    messages: Sequence[bytes]

    @classmethod
    def build(cls, repository: Path) -> Self:
        raw, head = list(_raw_inputs(repository)), _json_head()
        posts = [(PATH, head + hidden + target) for hidden, target in raw]
        return cls(head, posts, [_message(one) for one in raw])

    @property
    def header(self) -> dict[str, str]:
        return {_HEADER: str(len(self.head))}

    def over_http(self, server: Server, connections: int, seconds: float) -> Figures:
        """Return the figures of wrk and the server's processor time for a request."""
        return load(server, self.posts, connections, seconds, accept="*/*", content_type=_RAW,
                    **self.header)  # fmt: skip

    def over_grpc(self, server: Server, port: int, connections: int, seconds: float) -> Figures:
        """Return the figures of `grpc_load` and the server's processor time for a request."""
        before = server.cpu_seconds()
        result = grpc_load.run(port, self.messages, connections=connections, seconds=seconds)
        spent = server.cpu_seconds() - before
        return result.as_json() | {"cpu_us": spent / max(1, result.requests) * 1e6}

    def first_answer(self, port: int) -> float:
        """Return the probability that a server gives for the first query."""
        path, body = self.posts[0]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("POST", path, body, self.header)
            content = connection.getresponse().read()
        finally:
            connection.close()
        return float(np.frombuffer(content[-8:], np.float64)[0])


def measure(repository: Path, seconds: float) -> Rows:
    """Return a row for each server and concurrency, with its ratios to the lean one."""
    requests = Requests.build(repository)
    rows: Rows = []
    with _all(repository) as (running, ports):
        for connections in CONCURRENCY:

            def over_http(name: str, connections: int = connections) -> Figures:
                return requests.over_http(running[name], connections, seconds)

            def over_grpc(name: str, connections: int = connections) -> Figures:
                return requests.over_grpc(running[name], ports[name], connections, seconds)

            rows += _in_turns(over_http, OURS, LEAN) + _in_turns(over_grpc, OURS_GRPC, LEAN_GRPC)
    return rows


def _json_head() -> bytes:
    tensors = [("hidden", "FP32", [1, HIDDEN], 4 * HIDDEN), ("target", "INT64", [1], 8)]
    inputs = [
        {"name": name, "datatype": kind, "shape": shape, "parameters": {"binary_data_size": size}}
        for name, kind, shape, size in tensors
    ]
    outputs = [{"name": OUTPUT, "parameters": {"binary_data": True}}]
    return json.dumps({"inputs": inputs, "outputs": outputs}, separators=(",", ":")).encode()


def _raw_inputs(repository: Path) -> Iterator[tuple[bytes, bytes]]:
    for i, target in enumerate(some_targets(repository)):
        hidden = np.random.default_rng(i).standard_normal(HIDDEN).astype(np.float32)
        yield hidden.tobytes(), np.int64(target).tobytes()


def _message(raw: tuple[bytes, bytes]) -> bytes:
    message = ModelInferRequest(model_name="random", raw_input_contents=raw)
    message.inputs.add(name="hidden", datatype="FP32", shape=[1, HIDDEN])
    message.inputs.add(name="target", datatype="INT64", shape=[1])
    message.outputs.add(name=OUTPUT)
    return bytes(message.SerializeToString())


def _in_turns(measured: Callable[[str], Figures], ours: str, lean: str) -> Rows:
    """Measure lean, ours, ours, lean; ratios are of the sums, so that a drift cancels."""
    turns = [(name, measured(name)) for name in (lean, ours, ours, lean)]
    means = {
        name: {key: sum(f[key] for n, f in turns if n == name) / 2 for key in turns[0][1]}
        for name in (ours, lean)
    }
    return [
        {
            "server": name,
            **figures,
            "to_lean": figures["per_second"] / means[lean]["per_second"],
            "to_lean_by_cpu": means[lean]["cpu_us"] / max(figures["cpu_us"], 1e-9),
        }
        for name, figures in means.items()
    ]


@contextmanager
def _all(repository: Path) -> Iterator[tuple[dict[str, Server], dict[str, int]]]:
    """Run all servers; yield them, and the gRPC ports of those that have one."""
    bundle = repository / "random" / "1"
    ports = {OURS_GRPC: servers.free_port(), LEAN_GRPC: servers.free_port()}
    with ExitStack() as stack:
        ours = stack.enter_context(servers.service(repository, grpc_port=ports[OURS_GRPC]))
        lean = stack.enter_context(servers.app("lean_infer", bundle))
        lean_grpc = stack.enter_context(servers.grpc_app(bundle, ports[LEAN_GRPC]))
        yield {OURS: ours, LEAN: lean, OURS_GRPC: ours, LEAN_GRPC: lean_grpc}, ports
