"""The log of a process: structlog, without anything global. A log is made and passed on.

    json_log     one JSON object a line, into any stream
    stderr_log   the same on stderr, but readable lines if stderr is a terminal

`log.info("event", key=value)` writes an event, `log.bind(key=value)` makes a log that adds the
fields to every event, `log.exception("event")` adds the traceback of the exception that is handled.
"""

import json
import os
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from time import time
from typing import Any, BinaryIO

import orjson
import structlog
from structlog.typing import FilteringBoundLogger

from hsoftmax.service.settings import LogLevel

from .writer import Event, LogWriter, Render

Log = FilteringBoundLogger


def json_log(level: LogLevel, stream: BinaryIO | None = None) -> Log:
    """A log that writes one JSON object a line."""
    return _log(level, sys.stderr.buffer if stream is None else stream, _as_json)


def stderr_log(level: LogLevel, descriptor: int = 2) -> Log:
    """A log on what is stderr now, even if file descriptor 2 is replaced later.

    A process whose stderr was replaced already passes a `descriptor` of the former one. The stream
    is unbuffered: a thread that waits in a buffer's lock would end the process badly.
    """
    stream = os.fdopen(os.dup(descriptor), "wb", buffering=0)
    return _log(level, stream, _as_text() if stream.isatty() else _as_json)


def _log(level: LogLevel, stream: BinaryIO, render: Render) -> Log:
    log: Log = structlog.wrap_logger(
        LogWriter(stream, render),
        processors=[_pass_on],  # one, as each costs a request part of a microsecond
        wrapper_class=structlog.make_filtering_bound_logger(level),
        context_class=dict,
    ).bind()
    return log


def _pass_on(
    logger: object, level: str, event: MutableMapping[str, Any]
) -> tuple[tuple[MutableMapping[str, Any]], dict[str, Any]]:
    """The arguments of `LogWriter.add`, which renders the event later."""
    event["timestamp"] = time()
    event["level"] = level
    if "exc_info" in event:
        event = structlog.processors.format_exc_info(logger, level, event)
    return (event,), {}


def _as_json(event: Event) -> bytes:
    now = datetime.fromtimestamp(event.pop("timestamp"), UTC)
    line = {"timestamp": now, "level": event.pop("level"), "event": event.pop("event"), **event}
    try:
        return orjson.dumps(line, default=str, option=orjson.OPT_UTC_Z)
    except TypeError:  # text that is no UTF-8, of which no line before it must be lost
        return json.dumps(line, default=str).encode()


def _as_text() -> Render:
    """Readable lines, with colours unless the environment says NO_COLOR."""
    console = structlog.dev.ConsoleRenderer(colors="NO_COLOR" not in os.environ)

    def render(event: Event) -> bytes:
        event["timestamp"] = f"{datetime.fromtimestamp(event['timestamp']):%H:%M:%S.%f}"[:-3]
        return console(None, event["level"], event).encode(errors="backslashreplace")

    return render
