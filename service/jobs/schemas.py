"""JSON objects of the routes for files and batches: OpenAI's objects with a few more fields.

Times are Unix seconds, or null while the event has not happened.
"""

from typing import Any, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Status = Literal["validating", "failed", "in_progress", "finalizing", "completed", "expired",
                 "cancelling", "cancelled"]  # fmt: skip
Purpose = Literal["batch", "batch_output"]

ENDED: tuple[Status, ...] = ("failed", "completed", "expired", "cancelled")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class FileObject(_Frozen):
    """A file that a client uploaded or that a job produced."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int = Field(description="time of removal, unless an active job reads it")
    filename: str
    purpose: Purpose
    status: Literal["processed"] = "processed"


class FileDeleted(BaseModel):
    """Result of deleting a file."""

    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


class BatchError(_Frozen):
    """Reason why a job failed."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class BatchErrors(_Frozen):
    """List of the reasons why a job failed."""

    object: Literal["list"] = "list"
    data: list[BatchError]


class RequestCounts(_Frozen):
    """Numbers of rows: all of them, the scored ones, and those with an error record."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class BatchObject(_Frozen):
    """A scoring job."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str
    version: str
    digest: str = Field(description="digest of the bundle that scores all rows")
    task: str
    errors: BatchErrors | None = None
    input_file_id: str | None
    input_path: str | None = None
    input_url: str | None = Field(None, description="object in a store that the job reads")
    output_url: str | None = Field(
        None, description="object in a store that has the output once the job is completed"
    )
    completion_window: str
    status: Status = "validating"
    output_file_id: str | None = None
    error_file_id: str | None = None
    sequences_file_id: str | None = Field(
        None, description="perplexity only: one record a sequence"
    )
    created_at: int
    in_progress_at: int | None = None
    expires_at: int
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: RequestCounts = RequestCounts()
    progress: float = Field(0.0, description="percentage of the rows that are finished")
    summary: dict[str, Any] | None = Field(None, description="totals over the finished rows")
    metadata: dict[str, str] | None = None


class BatchDeleted(BaseModel):
    """Result of deleting a job."""

    id: str
    object: Literal["batch"] = "batch"
    deleted: bool = True


T = TypeVar("T", FileObject, BatchObject)


class _Page(BaseModel, Generic[T]):
    object: Literal["list"] = "list"
    data: list[T]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, data: list[T], has_more: bool) -> Self:
        """Build the page of these objects."""
        first, last = (data[0].id, data[-1].id) if data else (None, None)
        return cls(data=data, first_id=first, last_id=last, has_more=has_more)


class FileList(_Page[FileObject]):
    """A page of files. `has_more` is true if more files follow the last one."""


class BatchList(_Page[BatchObject]):
    """A page of jobs, newest first. `has_more` is true if older jobs follow."""
