"""What can go wrong with a row, and with a whole job.

ScoringError        the work failed; one line
├── CallError       the call was wrong: it cannot be carried out as it stands
├── NewerSchema     a newer version of hsoftmax wrote the database
├── InputChanged    the input is not what it was when the job began
├── BrokenInput     what comes cannot be read on
├── SpoiledShard    what the disk gives back is not what was written; it will be made again
└── Flaw            one row is wrong; it becomes a record in the row's place
"""

from typing import ClassVar, Literal

from hsoftmax.models import UserError

# The service answers with the same codes where the same thing is wrong with a request.
ErrorCode = Literal[
    "invalid_json",
    "invalid_query",
    "target_out_of_range",
    "unknown_label",
    "too_large",
    "inference_failed",
    "deadline_exceeded",
    "duplicate_id",
]


class ScoringError(UserError):
    """Base of all that ends a job."""


class CallError(ScoringError):
    """A job that was asked for wrongly."""

    exit_code: ClassVar[int] = 2


class NewerSchema(ScoringError):
    """A database with a schema that this version does not know."""


class InputChanged(ScoringError):
    """An input that somebody wrote to while it was read."""


class BrokenInput(ScoringError):
    """A stream that is not in the format that it says, or not to its end."""


class CorruptShard(ScoringError):
    """A shard that is forgotten, so that the job need only be taken up again."""

    def __init__(self, number: int, sentence: str) -> None:
        super().__init__(sentence)
        self.number = number


class RowError(ScoringError):
    """What is wrong with one row: a sentence and the service's code for it."""

    def __init__(self, code: ErrorCode, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
