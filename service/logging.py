"""Events as JSON lines on stderr. Nothing is configured globally: a log is made and passed on."""

import asyncio
import atexit
import json
import logging
import sys
import traceback
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from time import time
from typing import BinaryIO

import orjson

from .settings import LogLevel

_DELAY = 0.05  # seconds
_PIPE = 4096  # bytes, PIPE_BUF on Linux
_SEVERITY: dict[LogLevel, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40}

Fields = Mapping[str, object]
Line = tuple[float, LogLevel, str, Fields, Fields]  # when, how severe, what, and the fields


def json_log(level: LogLevel, stream: BinaryIO | None = None) -> "Log":
    """A log that writes one JSON object a line."""
    return Log(Lines(sys.stderr.buffer if stream is None else stream), level)


class Log:
    """Events by name with their fields; those below the level cost next to nothing."""

    def __init__(self, lines: "Lines", level: LogLevel, **always: object) -> None:
        self._lines = lines
        self._level = level
        self._least = _SEVERITY[level]
        self._always = always

    def bind(self, **always: object) -> "Log":
        """The same with these fields in every event."""
        return Log(self._lines, self._level, **self._always, **always)

    def debug(self, event: str, **fields: object) -> None:
        if self._least <= 10:
            self._lines.add((time(), "debug", event, self._always, fields))

    def info(self, event: str, **fields: object) -> None:
        if self._least <= 20:
            self._lines.add((time(), "info", event, self._always, fields))

    def warning(self, event: str, **fields: object) -> None:
        if self._least <= 30:
            self._lines.add((time(), "warning", event, self._always, fields))

    def error(self, event: str, error: BaseException | None = None, /, **fields: object) -> None:
        """What went wrong, with the traceback of the exception if one is given."""
        if error is not None:
            fields["exception"] = "".join(traceback.format_exception(error))
        self._lines.add((time(), "error", event, self._always, fields))

    def exception(self, event: str, **fields: object) -> None:
        """What went wrong, with the traceback of the exception that is being handled."""
        self.error(event, sys.exception(), **fields)


class Lines:
    """Writes lines: at once, but from an event loop a little later and many in one go.

    The loop has requests to answer, and a line that is made between two of them takes several
    times as long as one that is made after another line. Fields must not change meanwhile.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._waiting: deque[Line] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        atexit.register(self.flush)

    def add(self, line: Line) -> None:
        self._waiting.append(line)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # a thread of its own may as well wait
            return self.flush()
        if loop is not self._loop:  # which will flush, unless it has ended before
            self._loop = loop
            loop.call_later(_DELAY, self.flush)

    def flush(self) -> None:
        """Write what waits."""
        self._loop = None
        lines = []
        while self._waiting:
            lines.append(_encoded(*self._waiting.popleft()))
        if not self._stream.closed:
            for chunk in _chunks(lines):
                self._stream.write(chunk)
                self._stream.flush()


def _encoded(seconds: float, level: LogLevel, event: str, always: Fields, fields: Fields) -> bytes:
    now = datetime.fromtimestamp(seconds, UTC)
    line = {"timestamp": now, "level": level, "event": event, **always, **fields}
    try:
        return orjson.dumps(line, default=str, option=orjson.OPT_UTC_Z)
    except TypeError:  # text that is no UTF-8, of which no line before it must be lost
        return json.dumps(line, default=str).encode()


def _chunks(lines: list[bytes]) -> Iterator[bytes]:
    """Whole lines, as many as a pipe takes without mixing them with another process's."""
    chunk = b""
    for line in lines:
        if chunk and len(chunk) + len(line) >= _PIPE:
            yield chunk
            chunk = b""
        chunk += line + b"\n"
    if chunk:
        yield chunk


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
        error = record.exc_info[1] if record.exc_info else None
        if record.levelno >= logging.ERROR or error is not None:
            self._log.error(record.getMessage(), error)
        elif record.levelno >= logging.WARNING:
            self._log.warning(record.getMessage())
        else:
            self._log.info(record.getMessage())
