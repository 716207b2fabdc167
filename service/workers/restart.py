"""Keeps a service of one process running: a small parent process starts it again after a crash.

A bundle that is damaged while it is mapped, a fault in native code, or a lack of memory ends a
process by a signal, without a line in the log. The parent writes the line and starts a successor.
`hsoftmax serve` calls it before it imports the service, so the parent stays small and has one
thread, which a fork needs. The supervisor does the same for several workers.
"""

import atexit
import faulthandler
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from hsoftmax.service.logging import log_stderr_line, stderr_log
from hsoftmax.service.settings import LogLevel

from .exit_code import signal_name

_MIN_UPTIME_S = 10.0  # a process that ends earlier has failed at its start
_MAX_PAUSE_S = 30.0  # before a process that failed at its start is started again
_POLL_INTERVAL_S = 0.1
_MAX_LINE_BYTES = 2**16
_SIGNAL_EXIT_CODE = 128  # plus the signal's number, as a shell reports it


def restart_after_crash(log_level: LogLevel, run: Callable[[int], None]) -> int:
    """Run the service in a child process, and again if a signal ends it; return its exit code.

    `run` gets a descriptor of stderr for the log. In the child, descriptor 2 is a pipe: the parent
    logs what other code writes there, the last words of a process that crashes among them.

    An error that `run` raises is raised in the child, where stderr is as before.
    """
    parent = _Parent(log_level)
    handlers = {one: signal.signal(one, parent.pass_on) for one in _PASSED_ON}
    handlers[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    child = parent.supervise()
    for one, handler in handlers.items():
        signal.signal(one, handler)
    if isinstance(child, int):
        return child
    return child.run(run)


class _Parent:
    def __init__(self, log_level: LogLevel) -> None:
        self._log_level = log_level
        self._child = 0
        self._stopping = False
        self._failures = 0

    def supervise(self) -> "int | _Child":
        """Return the exit code of the service in the parent, and a `_Child` in each child."""
        while not self._stopping:
            started = time.monotonic()
            stderr, parent_end = os.pipe(), os.pipe()
            self._child = os.fork()
            if not self._child:
                os.close(stderr[0])
                os.close(parent_end[1])
                return _Child(stderr[1], parent_end[0])
            os.close(stderr[1])
            os.close(parent_end[0])
            code = self._wait(stderr[0])
            os.close(stderr[0])
            os.close(parent_end[1])
            if code >= 0:
                return code
            stopped = self._stopping
            self._pause_after(code, time.monotonic() - started)
            if stopped:
                return _SIGNAL_EXIT_CODE - code
        return 0

    def pass_on(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal: pass it on to the child, if there is one."""
        self._stopping = True
        if self._child:
            with suppress(OSError):
                os.kill(self._child, sig)

    def _wait(self, stderr: int) -> int:
        """Wait for the child; return its exit code, or minus the signal that ended it."""
        if self._stopping:  # since before it was started
            self.pass_on(signal.SIGTERM, None)
        lines = _Lines(stderr, self._log_level)
        ended = 0
        while not ended:
            lines.forward(_POLL_INTERVAL_S)
            ended, status = os.waitpid(self._child, os.WNOHANG)
        self._child = 0
        while lines.forward(0):
            pass
        lines.end()
        return os.waitstatus_to_exitcode(status)

    def _pause_after(self, code: int, uptime: float) -> None:
        failed_at_start = uptime < _MIN_UPTIME_S
        self._failures = self._failures + 1 if failed_at_start else 0
        pause = min(_MAX_PAUSE_S, 2.0 ** (self._failures - 2)) if self._failures > 1 else 0.0
        ended = {"code": code, "signal": signal_name(code)}
        stderr_log(self._log_level).error("process_ended", **ended, restarted_in_s=pause)
        until = time.monotonic() + pause
        while not self._stopping and time.monotonic() < until:
            time.sleep(_POLL_INTERVAL_S)


class _Lines:
    """Lines that the child writes to stderr. A thread would be simpler, but the parent forks."""

    def __init__(self, descriptor: int, log_level: LogLevel) -> None:
        self._descriptor = descriptor
        self._log = stderr_log(log_level)
        self._rest = b""

    def forward(self, seconds: float) -> bool:
        """Log the next lines, or wait so long for them. Return False if there are none."""
        if not select.select([self._descriptor], [], [], seconds)[0]:
            return False
        if not (data := os.read(self._descriptor, 2**16)):
            time.sleep(seconds)  # the child has closed it, but lives
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[:_MAX_LINE_BYTES]
        for line in lines:
            log_stderr_line(line.decode(errors="replace"), self._log)
        return True

    def end(self) -> None:
        """Log a last line without an end."""
        log_stderr_line(self._rest.decode(errors="replace"), self._log)


class _Child:
    def __init__(self, stderr: int, parent_end: int) -> None:
        self._stderr = stderr
        self._parent_end = parent_end

    def run(self, run: Callable[[int], None]) -> NoReturn:
        """Run the service and exit with 0, or raise its error with stderr as before."""
        os.setpgrp()  # else Ctrl-C would be heard twice: from the terminal, and from the parent
        threading.Thread(target=self._stop_with_parent, daemon=True, name="parent").start()
        log = os.dup(2)
        os.dup2(self._stderr, 2)
        os.close(self._stderr)
        faulthandler.enable(2, all_threads=False)
        try:
            run(log)
        except BaseException:
            faulthandler.disable()
            os.dup2(log, 2)
            raise
        atexit._run_exitfuncs()
        os._exit(0)  # a load that still runs in native code would abort an ordinary exit

    def _stop_with_parent(self) -> None:
        os.read(self._parent_end, 1)  # returns when the parent has ended, even if it was killed
        os.kill(os.getpid(), signal.SIGTERM)


_PASSED_ON = (signal.SIGTERM, signal.SIGINT)
