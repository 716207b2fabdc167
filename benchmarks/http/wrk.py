"""Creates load with `wrk` on its own core (Debian and Ubuntu: apt-get install wrk)."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from .servers import LOAD_CORE

JSON = "application/json"

Post = tuple[str, bytes]  # path and body of a request

# Sends the requests in turn. They are built once, as building takes longer than sending.
_TURNS = """
local requests, turn = {}, 0
init = function(args)
  for i, path in ipairs(paths) do
    local file = io.open(folder .. "/" .. i, "rb")
    requests[i] = wrk.format("POST", path, headers, file:read("*a"))
    file:close()
  end
end
request = function()
  turn = turn % #requests + 1
  return requests[turn]
end
"""
_REPORT = """
done = function(summary, latency, requests)
  io.write(string.format("@ %d %d %d %d %d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99),
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout))
end
"""


@dataclass(frozen=True)
class Load:
    """Throughput and latency of a server under load."""

    connections: int
    requests: int
    per_second: float
    p50_ms: float
    p99_ms: float
    errors: int

    def as_json(self) -> dict[str, float]:
        return asdict(self)


def available() -> bool:
    return shutil.which("wrk") is not None


def post(
    port: int,
    requests: Sequence[Post],
    *,
    connections: int,
    seconds: float,
    accept: str = JSON,
    content_type: str = JSON,
    **headers: str,
) -> Load:
    """Send requests on all connections; each sends the next one after a response."""
    headers = {"content-type": content_type, "accept": accept, **headers}
    with tempfile.TemporaryDirectory() as directory:
        for i, (_, body) in enumerate(requests, 1):
            (Path(directory) / str(i)).write_bytes(body)
        paths = ", ".join(f'"{path}"' for path, _ in requests)
        listed = ", ".join(f'["{name}"] = "{value}"' for name, value in headers.items())
        script = Path(directory) / "post.lua"
        script.write_text(
            f'local folder, paths, headers = "{directory}", {{{paths}}}, {{{listed}}}\n'
            f"{_TURNS}{_REPORT}"
        )
        command = ["taskset", "-c", str(LOAD_CORE), "wrk", "-t1", f"-c{connections}"]
        arguments = [f"-d{max(1, round(seconds))}s", "--timeout=60s", "-s", str(script)]
        url = f"http://127.0.0.1:{port}"
        ran = subprocess.run(
            [*command, *arguments, url], capture_output=True, text=True, check=True
        )
    found = re.search(r"^@ (\d+) (\d+) (\d+) (\d+) (\d+)$", ran.stdout, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"wrk: expected its report, got {ran.stdout!r}")
    count, micros, p50, p99, errors = map(int, found.groups())
    return Load(connections, count, count / micros * 1e6, p50 / 1e3, p99 / 1e3, errors)
