"""Events as JSON lines on stderr. Nothing is configured globally: a log is made and passed on."""

import asyncio
import atexit
import logging
import sys
from collections import deque
from datetime import UTC, datetime
from typing import BinaryIO

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger

from .settings import LogLevel

Log = FilteringBoundLogger

_DELAY = 0.05  # seconds


def json_log(level: LogLevel, stream: BinaryIO | None = None) -> Log:
    """A log that writes one JSON object a line."""
    log: Log = structlog.wrap_logger(
        Lines(sys.stderr.buffer if stream is None else stream),
        processors=[structlog.processors.format_exc_info, _line],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    return log


class Lines:
    """Writes lines: at once, but from an event loop a little later and many in one go.

    A write costs as much as all else about a line, and the loop has requests to answer.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._waiting: deque[bytes] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        atexit.register(self.flush)

    def msg(self, line: bytes) -> None:
        self._waiting.append(line)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # a thread of its own may as well wait
            return self.flush()
        if loop is not self._loop:  # which will flush, unless it has ended before
            self._loop = loop
            loop.call_later(_DELAY, self.flush)

    # structlog calls the method that is named as the level.
    debug = info = warning = error = critical = exception = msg

    def flush(self) -> None:
        """Write what waits."""
        self._loop = None
        lines = []
        while self._waiting:
            lines.append(self._waiting.popleft())
        if lines and not self._stream.closed:
            self._stream.write(b"\n".join([*lines, b""]))
            self._stream.flush()


def forward(logger: str, log: Log) -> None:
    """Send what a standard library logger says to `log`, and nowhere else."""
    source = logging.getLogger(logger)
    source.handlers = [_Forward(log)]
    source.propagate = False
    source.setLevel(logging.INFO)


class _Forward(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.log(record.levelno, record.getMessage(), exc_info=record.exc_info)


def _line(_: object, level: str, event: EventDict) -> bytes:
    """The last processor; one for all, as every request comes by here."""
    line = {"timestamp": datetime.now(UTC), "level": level, **event}
    return orjson.dumps(line, default=str, option=orjson.OPT_UTC_Z)
