"""Keeps a service of one process running: a small parent process starts it again after a crash.

A bundle that is damaged while it is mapped, a fault in native code, or a lack of memory ends a
process by a signal, without a line in the log. The parent writes the line and starts a successor.
`hsoftmax serve` calls it before it imports the service, so the parent stays small and has one
thread, which a fork needs. The supervisor does the same for several workers.
"""

import os
import signal
import threading
import time
from contextlib import suppress
from types import FrameType

from hsoftmax.service.logging import Log, stderr_log
from hsoftmax.service.settings import LogLevel

from .exit_code import signal_name

_MIN_UPTIME_S = 10.0  # a process that ends earlier has failed at its start
_MAX_PAUSE_S = 30.0  # before a process that failed at its start is started again


def restart_after_crash(log_level: LogLevel) -> int | None:
    """Fork; return None in the child process, which is to run the service.

    In the parent, return the exit code of the service, once it has ended otherwise than by a
    signal, or was told to end.
    """
    return _Parent(log_level).run()


class _Parent:
    def __init__(self, log_level: LogLevel) -> None:
        self._log_level = log_level
        self._log: Log | None = None
        self._child = 0
        self._stopping = False
        self._failures = 0

    def run(self) -> int | None:
        handlers = {one: signal.signal(one, self._pass_on) for one in _PASSED_ON}
        handlers[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        while not self._stopping:
            started = time.monotonic()
            reader, writer = os.pipe()
            self._child = os.fork()
            if not self._child:
                os.close(writer)
                for one, handler in handlers.items():
                    signal.signal(one, handler)
                _prepare_child(reader)
                return None
            os.close(reader)
            code = self._wait()
            os.close(writer)
            if code >= 0:
                return code
            self._pause_after(code, time.monotonic() - started)
        return 0

    def _wait(self) -> int:
        """Wait for the child; return its exit code, or minus the signal that ended it."""
        if self._stopping:  # since it was started
            self._pass_on(signal.SIGTERM, None)
        _, status = os.waitpid(self._child, 0)
        self._child = 0
        return os.waitstatus_to_exitcode(status)

    def _pause_after(self, code: int, uptime: float) -> None:
        failed_at_start = uptime < _MIN_UPTIME_S
        self._failures = self._failures + 1 if failed_at_start else 0
        pause = min(_MAX_PAUSE_S, 2.0 ** (self._failures - 2)) if self._failures > 1 else 0.0
        if self._log is None:
            self._log = stderr_log(self._log_level)
        self._log.error("process_ended", code=code, signal=signal_name(code), restarted_in_s=pause)
        until = time.monotonic() + pause
        while not self._stopping and time.monotonic() < until:
            time.sleep(0.1)

    def _pass_on(self, sig: int, frame: FrameType | None) -> None:
        self._stopping = True
        if self._child:
            with suppress(OSError):
                os.kill(self._child, sig)


_PASSED_ON = (signal.SIGTERM, signal.SIGINT)


def _prepare_child(parent_end: int) -> None:
    os.setpgrp()  # else Ctrl-C would be heard twice: from the terminal, and from the parent

    def stop_with_parent() -> None:
        os.read(parent_end, 1)  # returns when the parent has ended, even if it was killed
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop_with_parent, daemon=True, name="parent").start()
