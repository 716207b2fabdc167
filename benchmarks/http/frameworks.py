"""Measures LitServe, BentoML and MLServer on the same graph, each in its own virtual environment.

They are installed once from the package index into `build/frameworks/<name>`. One that cannot be
installed or does not start is skipped with the reason. Each answers {"inputs", "targets"} with
{"probabilities"} from the same `target_log_prob` graph, on one thread, with its own defaults.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from . import servers, wrk
from .servers import Server, free_port, running
from .target_queries import json_queries
from .wrk import Post

_ENVIRONMENTS = Path("build/frameworks")
PROGRAMS = Path(__file__).parent / "foreign"
_CONNECTIONS = 16
_PACKAGES = {"litserve": ["litserve"], "bentoml": ["bentoml"], "mlserver": ["mlserver"]}

Rows = list[dict[str, Any]]


def measure(repository: Path, seconds: float) -> Rows:
    """Measure each beside the service; `ours_to_it` is the ratio of their requests a second."""
    rows: Rows = []
    with servers.service(repository) as ours:
        for name, start in _STARTS.items():
            try:
                rows.append(_compare_with(name, start, ours, repository / "random" / "1", seconds))
            except (subprocess.CalledProcessError, RuntimeError, OSError) as error:
                rows.append({"server": name, "skipped": str(error).splitlines()[0][:200]})
    return rows


def _compare_with(
    name: str,
    start: Callable[[Path, Path], AbstractContextManager[Server]],
    ours: Server,
    bundle: Path,
    seconds: float,
) -> dict[str, Any]:
    packages = [*_PACKAGES[name], "onnxruntime", "numpy", "setuptools<81"]
    python = installed(name, packages)
    requests = json_queries(bundle.parent.parent)
    their_requests = [_request(name, body) for _, body in requests]
    with start(python, bundle) as theirs:
        wrk.post(theirs.port, their_requests, connections=1, seconds=1)
        theirs_load = wrk.post(
            theirs.port, their_requests, connections=_CONNECTIONS, seconds=seconds
        )
    beside = wrk.post(ours.port, requests, connections=_CONNECTIONS, seconds=seconds)
    ratio = beside.per_second / max(theirs_load.per_second, 1e-9)
    return {"server": name, **theirs_load.as_json(), "ours_to_it": ratio}


def installed(name: str, packages: list[str]) -> Path:
    """Install the packages of a framework; return the Python of its environment."""
    home = _ENVIRONMENTS / name
    python = home / "bin" / "python"
    if not (home / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        (home / "installed").touch()
    return python.absolute()


def _request(name: str, body: bytes) -> Post:
    """Return path and body of a query in the protocol of the framework."""
    if name == "litserve":
        return "/predict", body
    if name == "bentoml":
        return "/probabilities", body
    return "/v2/models/random/infer", _v2(body)


def _v2(body: bytes) -> bytes:
    query = json.loads(body)
    return json.dumps(
        {
            "inputs": [
                {
                    "name": "hidden",
                    "datatype": "FP32",
                    "shape": [len(query["inputs"]), len(query["inputs"][0])],
                    "data": query["inputs"],
                },
                {
                    "name": "target",
                    "datatype": "INT64",
                    "shape": [len(query["targets"])],
                    "data": query["targets"],
                },
            ]
        }
    ).encode()


def _litserve(python: Path, bundle: Path) -> AbstractContextManager[Server]:
    port = free_port()
    command = [str(python), str(PROGRAMS / "litserve_server.py"), str(port)]
    return running(command, port, {"BENCHMARK_BUNDLE": str(bundle)})


def _bentoml(python: Path, bundle: Path) -> AbstractContextManager[Server]:
    port = free_port()
    command = [str(python), "-m", "bentoml", "serve", "bentoml_server:Probabilities"]
    arguments = ["--port", str(port), "--working-dir", str(PROGRAMS)]
    environment = {"BENCHMARK_BUNDLE": str(bundle), "BENTOML_DO_NOT_TRACK": "True"}
    return running([*command, *arguments], port, environment)


def _mlserver(python: Path, bundle: Path) -> AbstractContextManager[Server]:
    port = free_port()
    command = [str(python.parent / "mlserver"), "start", str(PROGRAMS / "mlserver_folder")]
    environment = {
        "BENCHMARK_BUNDLE": str(bundle),
        "MLSERVER_HTTP_PORT": str(port),
        "MLSERVER_GRPC_PORT": str(free_port()),
        "MLSERVER_METRICS_PORT": str(free_port()),
        "MLSERVER_PARALLEL_WORKERS": "0",
        "MLSERVER_DEBUG": "false",
        "PYTHONPATH": str(PROGRAMS),
    }
    return running(command, port, environment)


_STARTS = {"litserve": _litserve, "bentoml": _bentoml, "mlserver": _mlserver}
