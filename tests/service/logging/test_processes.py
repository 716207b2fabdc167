"""All that a real service writes to stderr is one JSON object a line, whatever writes it."""

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.service.processes import Process
from tests.service.workers.test_supervisor import ask

# Python runs it first in every process. ONNX Runtime writes when it is imported, for example in a
# container without the files of the processor's features. The thread fails once the service runs.
SITE = """
import ctypes, importlib.abc, sys, threading, time, warnings

def write(text):
    ctypes.CDLL(None).dprintf(2, text)

def write_and_fail():
    while threading.excepthook is threading.__excepthook__:  # until the log has taken over
        time.sleep(0.05)
    time.sleep(1)
    warnings.warn("old", UserWarning)
    print("printed", file=sys.stderr, flush=True)
    write(b"from C\\n")
    raise KeyError("in a thread")

class Writes(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "onnxruntime":
            write(b"\\x1b[0;93m2026-05-09 10:11:12.123456789 [W:onnxruntime:Default, device.cc:164 "
                  b"Find] no GPU\\x1b[m\\nError in cpuinfo\\n")
        if name == "hsoftmax.service.app":
            threading.Thread(target=write_and_fail, name="failing").start()
        return None

sys.meta_path.insert(0, Writes())
"""
SERVE = "import sys; from hsoftmax.cli import run; sys.exit(run(['serve']))"


@pytest.fixture
def writing(tmp_path, monkeypatch) -> None:
    """Make every process that starts later write to stderr in every way."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITE)
    paths = [str(tmp_path / "site"), str(Path(__file__).parents[3])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))


def told_by(server: Process) -> list[dict]:
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=20) == 0
    return [json.loads(line) for line in server.read_log().splitlines()]


@pytest.mark.parametrize(("workers", "processes"), [(1, 1), (2, 3)])
def test_every_line_is_json_whatever_writes(start, writing, workers, processes):
    server = start(run=SERVE, workers=workers, waits_for="serving")
    for _ in range(processes):
        server.until("thread_failed")
    told = told_by(server)
    failed = [one for one in told if one["event"] == "thread_failed"]
    assert {one["thread"] for one in failed} == {"failing"}
    assert all("KeyError: 'in a thread'" in one["exception"] for one in failed)
    messages = Counter((one["event"], one["message"]) for one in told if "message" in one)
    assert messages["onnxruntime", "no GPU"] == processes
    assert messages["stderr", "Error in cpuinfo"] == processes
    assert messages["stderr", "printed"] == messages["stderr", "from C"] == processes
    assert sum("UserWarning: old" in one.get("message", "") for one in told) == processes
    assert told[-1]["event"] == "stopped"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_client_that_leaves_leaves_only_json(start, workers):
    """ONNX Runtime writes a coloured line when a run is terminated."""
    server = start(run=SERVE, workers=workers)
    for _ in range(workers - 1):
        server.until("loaded")  # a worker that is still loading answers 503
    body = json.dumps({"inputs": [[0.5] * 8] * 4000})
    for _ in range(20):
        connection = server.connect()
        connection.request("POST", "/v1/models/words/probabilities", body)
        time.sleep(0.005)
        connection.close()
    assert ask(server) == 200
    assert told_by(server)


def test_the_last_words_of_a_process_that_crashes_are_lines_of_the_log(start):
    server = start(run=SERVE)
    pid = server.process.pid
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    os.kill(int(child), signal.SIGABRT)
    assert "Fatal Python error: Aborted" in server.until("stderr")["message"]
    assert server.until("process_ended")["signal"] == "SIGABRT"
    server.until("loaded")
    assert told_by(server)


def test_a_failure_of_the_service_itself_is_one_line(start, tmp_path):
    fails = tmp_path / "fails.py"
    fails.write_text(FAILS)
    run = f"import runpy; runpy.run_path({str(fails)!r}, run_name='__main__')"
    with pytest.raises(AssertionError, match="service_failed") as failed:
        start(run=run)
    (line,) = [one for one in str(failed.value).splitlines() if "service_failed" in one]
    assert "ZeroDivisionError" in line


FAILS = """
from hsoftmax.service import Settings, serve
from hsoftmax.service.server import serve as module

module.uvicorn_config = lambda app, settings: 1 / 0
serve(Settings())
"""


def test_workers_still_say_which_one_wrote(start, writing):
    server = start(run=SERVE, workers=2, waits_for="serving")
    for _ in range(3):
        server.until("thread_failed")
    told = told_by(server)
    assert {one.get("worker") for one in told if one.get("message") == "from C"} == {None, 0, 1}
