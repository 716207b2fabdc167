"""LitServe, BentoML and MLServer on the same graph, each in a virtual environment of its own.

They are installed from the package index into `build/frameworks/<name>`, once; one that cannot be
installed or does not come up is skipped with its reason. Each answers {"inputs", "targets"} with
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
from .wrk import Asked

_ENVIRONMENTS = Path("build/frameworks")
_PROGRAMS = Path(__file__).parent / "foreign"
_CONNECTIONS = 16
_PACKAGES = {"litserve": ["litserve"], "bentoml": ["bentoml"], "mlserver": ["mlserver"]}

Rows = list[dict[str, Any]]


def measure(repository: Path, seconds: float) -> Rows:
    """Each beside our own; `ours_to_it` is how many times more requests ours answers."""
    rows: Rows = []
    with servers.service(repository) as ours:
        for name, start in _STARTS.items():
            try:
                rows.append(_beside(name, start, ours, repository / "random" / "1", seconds))
            except (subprocess.CalledProcessError, RuntimeError, OSError) as error:
                rows.append({"server": name, "skipped": str(error).splitlines()[0][:200]})
    return rows


def _beside(
    name: str,
    start: Callable[[Path, Path], AbstractContextManager[Server]],
    ours: Server,
    bundle: Path,
    seconds: float,
) -> dict[str, Any]:
    python = _installed(name)
    asked = json_queries(bundle.parent.parent)
    theirs_asked = [_asked(name, body) for _, body in asked]
    with start(python, bundle) as theirs:
        wrk.post(theirs.port, theirs_asked, connections=1, seconds=1)
        seen = wrk.post(theirs.port, theirs_asked, connections=_CONNECTIONS, seconds=seconds)
    beside = wrk.post(ours.port, asked, connections=_CONNECTIONS, seconds=seconds)
    ratio = beside.per_second / max(seen.per_second, 1e-9)
    return {"server": name, **seen.as_json(), "ours_to_it": ratio}


def _installed(name: str) -> Path:
    """The Python of its environment."""
    home = _ENVIRONMENTS / name
    python = home / "bin" / "python"
    if not (home / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        wanted = [*_PACKAGES[name], "onnxruntime", "numpy", "setuptools<81"]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
        (home / "installed").touch()
    return python.absolute()


def _asked(name: str, body: bytes) -> Asked:
    """The same question in its own protocol."""
    if name == "litserve":
        return "/predict", body
    if name == "bentoml":
        return "/probabilities", body
    return "/v2/models/random/infer", _v2(body)


def _v2(body: bytes) -> bytes:
    asked = json.loads(body)
    return json.dumps(
        {
            "inputs": [
                {
                    "name": "hidden",
                    "datatype": "FP32",
                    "shape": [len(asked["inputs"]), len(asked["inputs"][0])],
                    "data": asked["inputs"],
                },
                {
                    "name": "target",
                    "datatype": "INT64",
                    "shape": [len(asked["targets"])],
                    "data": asked["targets"],
                },
            ]
        }
    ).encode()


def _litserve(python: Path, bundle: Path) -> AbstractContextManager[Server]:
    port = free_port()
    command = [str(python), str(_PROGRAMS / "litserve_server.py"), str(port)]
    return running(command, port, {"BENCHMARK_BUNDLE": str(bundle)})


def _bentoml(python: Path, bundle: Path) -> AbstractContextManager[Server]:
    port = free_port()
    command = [str(python), "-m", "bentoml", "serve", "bentoml_server:Probabilities"]
    told = ["--port", str(port), "--working-dir", str(_PROGRAMS)]
    environment = {"BENCHMARK_BUNDLE": str(bundle), "BENTOML_DO_NOT_TRACK": "True"}
    return running([*command, *told], port, environment)


def _mlserver(python: Path, bundle: Path) -> AbstractContextManager[Server]:
    port = free_port()
    command = [str(python.parent / "mlserver"), "start", str(_PROGRAMS / "mlserver_folder")]
    environment = {
        "BENCHMARK_BUNDLE": str(bundle),
        "MLSERVER_HTTP_PORT": str(port),
        "MLSERVER_GRPC_PORT": str(free_port()),
        "MLSERVER_METRICS_PORT": str(free_port()),
        "MLSERVER_PARALLEL_WORKERS": "0",
        "MLSERVER_DEBUG": "false",
        "PYTHONPATH": str(_PROGRAMS),
    }
    return running(command, port, environment)


_STARTS = {"litserve": _litserve, "bentoml": _bentoml, "mlserver": _mlserver}
