"""Why a job stops, and what is said of it."""

import errno
import sqlite3
from typing import Literal

from hsoftmax.scoring import CallError, InputChanged, ScoringError
from hsoftmax.scoring.errors import NewerSchema

Reason = Literal["stopping", "cancelled", "expired"]

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class Interrupted(Exception):
    """Somebody wants the job to stop: this process ends, a client cancelled, its time is over."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


class Failure(Exception):
    """A job that cannot go on: a code for programs, and a sentence."""

    def __init__(self, code: str, sentence: str, param: str | None = None) -> None:
        super().__init__(sentence)
        self.code = code
        self.param = param


def failure_of(error: Exception) -> Failure | None:
    """What a job that ended with this failed of; None for what nobody foresaw."""
    match error:
        case Failure():
            return error
        case InputChanged():
            return Failure("input_changed", str(error))
        case CallError():
            return Failure("invalid_input", str(error))
        case NewerSchema():
            return Failure("storage_failed", str(error))
        case ScoringError(__context__=sqlite3.Error() as inner):
            return _of_storage(inner.sqlite_errorcode == sqlite3.SQLITE_FULL)
        case ScoringError():
            return Failure("input_unreadable", str(error))
        case OSError():
            return _of_storage(error.errno in _FULL)
        case _:
            return None


def _of_storage(full: bool) -> Failure:
    if full:
        return Failure("disk_full", "disk: expected room for what is scored, got none")
    return Failure("storage_failed", "disk: expected to read and write there, got a failure")
