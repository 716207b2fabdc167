"""Writes log events to a stream, so that the event loop never waits for the reader of the log.

structlog hands events on unrendered. An event that is logged on an event loop is rendered and
written by a thread, up to 50 ms later and together with others: a line that is made between two
requests takes several times as long as one that is made after another line, and a stream whose
reader is slow would stop all requests. Once there is that thread, it writes the events of all
threads; a process without an event loop writes each event at once.
"""

import asyncio
import atexit
import threading
from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic, sleep, time
from typing import Any, BinaryIO

Event = dict[str, Any]  # with its timestamp, in seconds, its level and its name, `event`
Render = Callable[[Event], bytes]

_DELAY_S = 0.05
_PIPE_BYTES = 4096  # PIPE_BUF on Linux
_MAX_WAITING = 10_000  # events; about two seconds of a busy process
_EXIT_TIMEOUT_S = 2.0  # for the last lines, if the reader of the log takes none


class LogWriter:
    """Takes events from any thread. Their fields must not change afterwards."""

    def __init__(self, stream: BinaryIO, render: Render) -> None:
        self._stream = stream
        self._render = render
        self._waiting: deque[Event] = deque()
        self._lost = 0
        self._writing = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._due = threading.Event()
        self._thread: threading.Thread | None = None
        atexit.register(self._finish)

    def add(self, event: Event) -> None:
        """Write the event; on an event loop, a little later."""
        if len(self._waiting) < _MAX_WAITING:
            self._waiting.append(event)
        else:
            self._lost += 1
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return self._write_now()
        if loop is not self._loop:  # the other loop has ended, or nothing waits
            self._loop = loop
            loop.call_later(_DELAY_S, self._wake)

    debug = info = warning = error = critical = add  # structlog calls the method of the level

    def _write_now(self) -> None:
        if self._thread is None:
            self._write()
        else:
            self._due.set()

    def _wake(self) -> None:
        self._loop = None
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True, name="log")
            self._thread.start()
        self._due.set()

    def _run(self) -> None:
        while True:
            self._due.wait()
            self._due.clear()
            self._write()

    def _write(self) -> None:
        """Write all that waits, unless another thread is writing, which then does it.

        A signal handler may log while its own thread writes: nothing here waits for the lock.
        """
        while self._waiting and self._writing.acquire(blocking=False):
            try:
                for chunk in _chunks(self._lines()):
                    _write_all(self._stream, chunk)
            except (OSError, ValueError):  # the reader has gone, or the stream is closed
                self._waiting.clear()
            finally:
                self._writing.release()

    def _lines(self) -> Iterator[bytes]:
        while self._waiting:
            yield self._render(self._waiting.popleft())
        if self._lost:
            lost, self._lost = self._lost, 0
            yield self._render(
                {"timestamp": time(), "level": "warning", "event": "log_lines_lost", "lines": lost}
            )

    def _finish(self) -> None:
        """Write the waiting events before the process ends."""
        self._write_now()
        give_up = monotonic() + _EXIT_TIMEOUT_S
        while (self._waiting or self._writing.locked()) and monotonic() < give_up:
            sleep(0.005)


def _chunks(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Whole lines, as many as a pipe takes without mixing them with another process's."""
    chunk = b""
    for line in lines:
        if chunk and len(chunk) + len(line) >= _PIPE_BYTES:
            yield chunk
            chunk = b""
        chunk += line + b"\n"
    if chunk:
        yield chunk


def _write_all(stream: BinaryIO, chunk: bytes) -> None:
    left = memoryview(chunk)
    while left:
        left = left[stream.write(left) or len(left) :]  # None: the stream would block, and is lost
    stream.flush()
