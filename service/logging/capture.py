"""Sends to the log what other code writes: one JSON object a line, as all of the log.

Python's warnings, standard loggers and uncaught exceptions of threads come as records. ONNX
Runtime, as other code in C, writes to file descriptor 2 itself, which is a pipe here. Its callback
for log lines is no substitute, as its own threads never call it, and as it writes when it is
imported.
"""

import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from .log import Log

_END_TIMEOUT_S = 1.0  # a child process that has inherited the pipe may keep it open
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# `2026-05-09 10:11:12.123456789 [W:onnxruntime:Default, file.cc:164 Function] message`
_ONNXRUNTIME = re.compile(r"\S+ \S+ \[([VIWEF]):onnxruntime:[^,\]]*, ([^\]]*)\] (.*)")
_LEVELS = {"V": "debug", "I": "info", "W": "warning", "E": "error", "F": "error"}


@contextmanager
def logging_captured(log: Log) -> Iterator[None]:
    """Send to `log` what standard library loggers, Python's warnings and failing threads say."""
    root = logging.getLogger()
    before, hook = root.handlers, threading.excepthook
    root.handlers = [_Forward(log)]
    logging.getLogger("uvicorn").setLevel(logging.INFO)
    logging.captureWarnings(True)
    threading.excepthook = partial(_log_failed_thread, log)
    try:
        yield
    finally:
        threading.excepthook = hook
        logging.captureWarnings(False)
        root.handlers = before


@contextmanager
def stderr_captured(log: Log) -> Iterator[int]:
    """Send to `log`, which must have its own descriptor, each line that is written to stderr.

    Yields a descriptor of what stderr was before.
    """
    kept = os.dup(2)
    reader, writer = os.pipe()
    os.dup2(writer, 2)
    os.close(writer)
    thread = threading.Thread(target=_forward, args=(reader, log), daemon=True, name="stderr")
    thread.start()
    try:
        yield kept
    finally:
        os.dup2(kept, 2)  # nothing holds the pipe's end then, and the thread ends
        os.close(kept)
        thread.join(_END_TIMEOUT_S)


class _Forward(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        source = record.name.partition(".")[0] if record.name != "py.warnings" else "warnings"
        fields = {"exc_info": record.exc_info} if record.exc_info else {}
        level = min(record.levelno, logging.ERROR) // 10 * 10
        self._log.log(level, source, message=record.getMessage().strip(), **fields)


def _log_failed_thread(log: Log, failed: threading.ExceptHookArgs) -> None:
    if failed.exc_type is not SystemExit:
        name = None if failed.thread is None else failed.thread.name
        log.error("thread_failed", thread=name, exc_info=failed.exc_value)


def _forward(reader: int, log: Log) -> None:
    with open(reader, errors="replace") as lines:
        for line in lines:
            log_stderr_line(line, log)


def log_stderr_line(line: str, log: Log) -> None:
    """Write a line that was written to stderr as a line of the log."""
    line = _COLOURS.sub("", line).rstrip()
    if found := _ONNXRUNTIME.fullmatch(line):
        level, source, message = found.groups()
        getattr(log, _LEVELS[level])("onnxruntime", message=message, source=source)
    elif line:
        log.warning("stderr", message=line)
