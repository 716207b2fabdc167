"""Measures Triton on the same graph with the same requests, over HTTP and over gRPC, in turns.

`nvidia-pytriton` carries Triton's server and its Python backend. It is installed once from the
package index into `build/frameworks/triton`. Triton runs `target_log_prob` with ONNX Runtime on one
thread: in its Python backend, and through PyTriton, where the backend asks another process. Its
model has the inputs and the output of the service's, so that both get the same bytes from the same
client: those of `infer_queries`. The bar is 5 times its requests.
"""

import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import infer_queries, servers
from .frameworks import PROGRAMS, installed
from .servers import Server, free_port, running

_CONNECTIONS = (1, 16, 64)
_TURNS = 2
_PACKAGES = ["nvidia-pytriton==0.7.0", "onnxruntime", "numpy<2"]
_STUB = "triton_python_backend_stub"

Figures = dict[str, float]


def measure(repository: Path, seconds: float) -> list[dict[str, Any]]:
    """Measure both in turns; `ours_to_it` is the ratio of the requests a second."""
    try:
        python = installed("triton", _PACKAGES)
        return _measure(python, repository, seconds)
    except (subprocess.CalledProcessError, RuntimeError, OSError) as error:
        return [{"server": "Triton", "skipped": str(error).splitlines()[0][:200]}]


def _measure(python: Path, repository: Path, seconds: float) -> list[dict[str, Any]]:
    requests, our_port = infer_queries.Requests.build(repository), free_port()
    rows: list[dict[str, Any]] = []
    with servers.service(repository, grpc_port=our_port) as ours:
        for name, start in _STARTS.items():
            their_port = free_port()
            with start(python, repository / "random" / "1", their_port) as theirs:
                _expect_same_answers(ours, theirs, requests)
                found = _compare(requests, ours, our_port, theirs, their_port, seconds)
                rows += [{"server": name, **row} for row in found]
    return rows


def _compare(
    requests: infer_queries.Requests,
    ours: Server,
    our_port: int,
    theirs: Server,
    their_port: int,
    seconds: float,
) -> Iterator[dict[str, Any]]:
    """Yield the rows of each concurrency; ports are those of gRPC."""
    for connections in _CONNECTIONS:

        def http(server: Server, connections: int = connections) -> Figures:
            return requests.over_http(server, connections, seconds)

        def grpc(server: Server, connections: int = connections) -> Figures:
            port = our_port if server is ours else their_port
            return requests.over_grpc(server, port, connections, seconds)

        yield from _in_turns("HTTP", http, ours, theirs)
        yield from _in_turns("gRPC", grpc, ours, theirs)


def _in_turns(
    protocol: str, measured: Callable[[Server], Figures], ours: Server, theirs: Server
) -> list[dict[str, Any]]:
    """Measure Triton and the service in turns, and return a row of each turn."""
    rows = []
    for turn in range(_TURNS):
        their_figures, our_figures = measured(theirs), measured(ours)
        per_second = our_figures["per_second"] / max(their_figures["per_second"], 1e-9)
        cpu = their_figures["cpu_us"] / max(our_figures["cpu_us"], 1e-9)
        rows.append({
            "protocol": protocol,
            "connections": int(our_figures["connections"]),
            "turn": turn,
            "ours_per_second": our_figures["per_second"],
            "its_per_second": their_figures["per_second"],
            "ours_to_it": per_second,
            "ours_to_it_by_cpu": cpu,
            "errors": our_figures["errors"] + their_figures["errors"],
        })  # fmt: skip
    return rows


def _expect_same_answers(ours: Server, theirs: Server, requests: "infer_queries.Requests") -> None:
    """Raise RuntimeError unless both give the same probability for the first request."""
    answers = [requests.first_answer(server.port) for server in (ours, theirs)]
    if abs(answers[0] - answers[1]) > 1e-5 * abs(answers[0]):
        raise RuntimeError(f"expected the same answers, got {answers}")


@contextmanager
def _python_backend(python: Path, bundle: Path, grpc_port: int) -> Iterator[Server]:
    """Run Triton's server from the package's folder, with the model in its Python backend."""
    (home,) = (python.parents[1] / "lib").glob("python3*/site-packages/pytriton/tritonserver")
    backends, version = home / "backends", home.parents[2].name.removeprefix("python")
    if not (backends / "python" / _STUB).exists():
        shutil.copy2(home / "python_backend_stubs" / version / _STUB, backends / "python" / _STUB)
    port = free_port()
    command = [
        str(home / "bin" / "tritonserver"),
        f"--model-repository={PROGRAMS / 'triton_models'}",
        f"--backend-directory={backends}",
        f"--http-port={port}",
        f"--grpc-port={grpc_port}",
        "--http-address=127.0.0.1",
        "--grpc-address=127.0.0.1",
        "--allow-metrics=false",
    ]
    with running(command, port, _environment(bundle, f"{home.parents[1]}:{PROGRAMS}")) as server:
        yield server


@contextmanager
def _pytriton(python: Path, bundle: Path, grpc_port: int) -> Iterator[Server]:
    port = free_port()
    command = [str(python), str(PROGRAMS / "pytriton_server.py"), str(port), str(grpc_port)]
    with running(command, port, _environment(bundle, str(PROGRAMS))) as server:
        servers.wait_for_answer(port, "/v2/models/random/ready")
        yield server


def _environment(bundle: Path, python_path: str) -> dict[str, str]:
    return {
        "BENCHMARK_BUNDLE": str(bundle),
        "PYTHONPATH": python_path,
        "LD_LIBRARY_PATH": sysconfig.get_config_var("LIBDIR"),  # else another Python's library
    }


_STARTS = {"Triton, Python backend": _python_backend, "PyTriton": _pytriton}
