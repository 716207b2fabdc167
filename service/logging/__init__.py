"""The log of a process: structlog in front of a writer that never makes a request wait."""

from .capture import log_stderr_line, logging_captured, stderr_captured
from .log import Log, json_log, stderr_log

__all__ = [
    "Log",
    "json_log",
    "log_stderr_line",
    "logging_captured",
    "stderr_captured",
    "stderr_log",
]
