"""Carries out the steps of a page as its reader does, in one folder.

Commands of `hsoftmax` run in this process, as starting one takes longer than its work. The service
runs on a thread with the settings of the `hsoftmax serve` command, on a free port; every other
command is run by a shell, such as `curl`.
"""

import contextlib
import http.client
import io
import os
import shlex
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from hsoftmax.cli import run
from hsoftmax.commands import serve
from hsoftmax.service import Settings, create_app

from .blocks import Command, Program, Step, matches

_PRINTED_ADDRESS = "127.0.0.1:8000"
_START_TIMEOUT_S = 60


class Reader:
    """A reader in a folder, with the names of the programs so far and the running service."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.names: dict[str, Any] = {}
        self._patch = patch
        self._services = contextlib.ExitStack()
        self._address = _PRINTED_ADDRESS
        patch.chdir(folder)
        patch.setenv("COLUMNS", "100")
        patch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")

    def close(self) -> None:
        self._services.close()

    def follow(self, step: Step) -> None:
        """Carry out a step, and compare what it prints with the page."""
        if isinstance(step, Program):
            printed = self._run_program(step)
            expected, subject = step.shown or "", step.code
        else:
            printed = self._run_command(step)
            expected, subject = step.shown, step.line
        assert matches(expected, printed), f"{subject}\nshown:\n{expected}\nprinted:\n{printed}"

    def _run_program(self, program: Program) -> str:
        code = program.code.replace(_PRINTED_ADDRESS, self._address)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), warnings.catch_warnings(action="ignore"):
            exec(compile(code, "page", "exec"), self.names)
        return printed.getvalue()

    def _run_command(self, command: Command) -> str:
        words = shlex.split(command.line)
        if words[0] == "export":
            for name, _, value in (word.partition("=") for word in words[1:]):
                self._patch.setenv(name, value)
            return ""
        if words[:2] == ["hsoftmax", "serve"]:
            self._services.close()
            self._address = self._services.enter_context(_serving(self._settings(words[1:])))
            return ""
        if words[0] == "hsoftmax":
            return _run_here(words[1:], fails="hsoftmax: " in command.shown)
        line = command.line.replace(_PRINTED_ADDRESS, self._address)
        done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (line, done.stderr)
        return done.stdout

    def _settings(self, arguments: list[str]) -> Settings:
        """Return the settings of a `serve` command."""
        found: list[Settings] = []
        with self._patch.context() as patch:
            patch.setattr(serve, "_serve", lambda settings, listener: found.append(settings))
            assert run([*arguments, "--port", "0"]) == 0
        return found[0]


def _run_here(arguments: list[str], fails: bool) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        code = run(arguments)
    assert (code != 0) == fails, printed.getvalue()
    return printed.getvalue()


@contextlib.contextmanager
def _serving(settings: Settings) -> Iterator[str]:
    """Serve until the end of the context; yield the address."""
    app = create_app(settings)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            address = f"127.0.0.1:{listener.getsockname()[1]}"
            _await_ready(address, thread)
            yield address
        finally:
            server.should_exit = True
            thread.join()


def _await_ready(address: str, thread: threading.Thread) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        assert thread.is_alive()
        assert time.monotonic() < deadline
        connection = http.client.HTTPConnection(address, timeout=_START_TIMEOUT_S)
        try:
            connection.request("GET", "/healthz/ready")
            response = connection.getresponse()
            response.read()
            if response.status == 200:
                return
        except ConnectionError:
            pass
        finally:
            connection.close()
        time.sleep(0.01)
