"""Errors of a single row, and errors that end a whole job.

ScoringError        the work failed; the message is one line
├── CallError       the call was wrong: it cannot be carried out as it stands
│   └── WorkspaceBusy   another process runs the job
├── NewerSchema     a newer version of hsoftmax wrote the database
├── InputChanged    the input changed while it was read
├── BrokenInput     a stream cannot be read any further
├── CorruptShard    a shard on the disk differs from what was written; it will be made again
├── RowsRefused     a server refused rows of a request; the other rows run again without them
└── RowError        one row is wrong; an error record takes the row's place
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

from hsoftmax.models import UserError

# The service uses the same codes for the same errors of a request.
ErrorCode = Literal[
    "invalid_json",
    "invalid_query",
    "target_out_of_range",
    "unknown_label",
    "logits_overflow",
    "too_large",
    "inference_failed",
    "deadline_exceeded",
    "duplicate_id",
]


class ScoringError(UserError):
    """Base of all errors that end a job."""


class CallError(ScoringError):
    """A call with wrong arguments."""

    exit_code: ClassVar[int] = 2


class WorkspaceBusy(CallError):
    """A job that another process runs at this moment."""


class NewerSchema(ScoringError):
    """A database with a schema that this version does not know."""


class InputChanged(ScoringError):
    """An input that was written to while it was read."""


class BrokenInput(ScoringError):
    """A stream that is not in its declared format, or that is cut off."""


class CorruptShard(ScoringError):
    """A shard whose bytes changed on the disk. The job drops it and can be resumed."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


class RowError(ScoringError):
    """An error of one row: a message and the service's code for it."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class RowsRefused(ScoringError):
    """Rows of a graph request that a server refused; their errors by index into its rows."""

    def __init__(self, row_errors: Mapping[int, RowError]) -> None:
        super().__init__(f"rows: expected some that the server takes, got {len(row_errors)} others")
        self.row_errors = row_errors
