"""`hsoftmax serve` with one process: a crash is a line of the log, and the service goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.service.processes import Process

from .test_supervisor import ask, eventually

SERVE = "import sys; from hsoftmax.cli import run; sys.exit(run(['serve']))"


def child_of(server: Process) -> int:
    pid = server.process.pid
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


@pytest.mark.parametrize("name", ["SIGBUS", "SIGKILL"])
def test_a_crash_is_logged_and_the_service_starts_again_at_its_address(start, name):
    server = start(run=SERVE)
    assert ask(server) == 200
    before = child_of(server)
    os.kill(before, getattr(signal, name))
    told = server.until("process_ended")
    assert (told["level"], told["signal"], told["restarted_in_s"]) == ("error", name, 0.0)
    assert ask(server) in (200, 503)  # the connection waits for the successor
    server.until("loaded")
    assert child_of(server) != before
    assert ask(server) == 200
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=20) == 0
    assert all(json.loads(line)["event"] for line in server.read_log().splitlines())


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_the_service_which_ends_with_0(start, sig):
    server = start(run=SERVE)
    child = child_of(server)
    server.process.send_signal(signal.SIGHUP)
    assert ask(server) == 200
    server.process.send_signal(sig)
    assert server.process.wait(timeout=20) == 0
    assert server.until("stopped")
    assert not Path(f"/proc/{child}").exists()


def test_a_second_interrupt_is_not_made_of_one(start):
    """A request in flight is finished after one Ctrl-C, which the whole process group gets."""
    server = start(run=SERVE, drain_timeout=10)
    assert os.getpgid(child_of(server)) != os.getpgid(server.process.pid)


def test_the_service_ends_when_its_parent_is_killed(start):
    server = start(run=SERVE)
    child = child_of(server)
    server.process.kill()
    eventually(lambda: not Path(f"/proc/{child}").exists())


CRASHES = """
import os, signal, sys
from hsoftmax.cli import run
from hsoftmax.service.workers import restart

def crash(child, run):
    os.kill(os.getpid(), signal.SIGSEGV)

restart._Child.run = crash
sys.exit(run(["serve"]))
"""


def test_a_service_that_crashes_at_its_start_waits_longer_each_time(repository):
    environment = {"HSOFTMAX_REPOSITORY": str(repository), "HSOFTMAX_PORT": "0"}
    process = subprocess.Popen(
        [sys.executable, "-c", CRASHES], env=os.environ | environment, stderr=subprocess.PIPE
    )
    told = [json.loads(process.stderr.readline()) for _ in range(3)]
    assert [one["restarted_in_s"] for one in told] == [0.0, 1.0, 2.0]
    assert {one["signal"] for one in told} == {"SIGSEGV"}
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 0
    assert time.monotonic() - started < 1.5
    process.stderr.close()


def test_errors_at_the_start_are_one_line_and_no_restart(tmp_path):
    command = [sys.executable, "-m", "hsoftmax", "serve", str(tmp_path / "none"), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("hsoftmax: repository: expected a folder, got none")
