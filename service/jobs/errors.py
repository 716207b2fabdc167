"""Exceptions that stop a job, and the mapping of other exceptions to them."""

import sqlite3
from typing import Literal

from hsoftmax.runtime.weights_guard import WeightsChanged
from hsoftmax.scoring import CallError, InputChanged, ScoringError
from hsoftmax.scoring.errors import NewerSchema
from hsoftmax.service.errors import StorageFull

from .reserve import NO_ROOM

Reason = Literal["stopping", "cancelled", "expired", "lost"]

# SQLite reports a disk without room for the index of its log as the second.
_SQLITE_FULL = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})


class Interrupted(Exception):
    """The job must stop: this process is stopping, a client cancelled it, it has expired, or
    another process has taken it."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


class JobFailure(Exception):
    """The job cannot continue. `code` is for programs, the message is one sentence for people."""

    def __init__(self, code: str, sentence: str, param: str | None = None) -> None:
        super().__init__(sentence)
        self.code = code
        self.param = param


def failure_of(error: Exception) -> JobFailure | None:
    """Return the failure that this exception means for a job, or None if it is unexpected."""
    match error:
        case JobFailure():
            return error
        case InputChanged():
            return JobFailure("input_changed", str(error))
        case CallError():
            return JobFailure("invalid_input", str(error))
        case WeightsChanged():  # of texts and of an encoder; the engine raises its own
            return JobFailure("bundle_gone", str(error), "endpoint")
        case NewerSchema():
            return JobFailure("storage_failed", str(error))
        case ScoringError(__context__=sqlite3.Error() as inner):
            return _storage_failure(inner.sqlite_errorcode in _SQLITE_FULL)
        case ScoringError():
            return JobFailure("input_unreadable", str(error))
        case StorageFull():
            return _storage_failure(full=True)
        case OSError():
            return _storage_failure(error.errno in NO_ROOM)
        case _:
            return None


def _storage_failure(full: bool) -> JobFailure:
    if full:
        return JobFailure("disk_full", "disk: expected room for what is scored, got none")
    return JobFailure("storage_failed", "disk: expected to read and write there, got a failure")
