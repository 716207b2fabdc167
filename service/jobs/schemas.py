"""Files and batches as clients see them: OpenAI's objects, and a few fields of ours.

Times are Unix seconds, null for what has not happened.
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
    """A file that was uploaded, or that a job has made."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int = Field(description="when it is removed, unless a job has yet to read it")
    filename: str
    purpose: Purpose
    status: Literal["processed"] = "processed"


class FileDeleted(BaseModel):
    """The file is gone."""

    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


class BatchError(_Frozen):
    """Why a job failed."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class BatchErrors(_Frozen):
    """Why a job failed, as a list."""

    object: Literal["list"] = "list"
    data: list[BatchError]


class RequestCounts(_Frozen):
    """Rows: all, those scored, those with an error record."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class BatchObject(_Frozen):
    """A job."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str
    version: str
    digest: str = Field(description="of the bundle that scores all of it")
    task: str
    errors: BatchErrors | None = None
    input_file_id: str | None
    input_path: str | None = None
    completion_window: str
    status: Status = "validating"
    output_file_id: str | None = None
    error_file_id: str | None = None
    sequences_file_id: str | None = Field(None, description="perplexity: a record a sequence")
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
    progress: float = Field(0.0, description="percent of the rows that are done")
    summary: dict[str, Any] | None = Field(None, description="sums over what is finished")
    metadata: dict[str, str] | None = None


T = TypeVar("T", FileObject, BatchObject)


class _Page(BaseModel, Generic[T]):
    object: Literal["list"] = "list"
    data: list[T]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, data: list[T], has_more: bool) -> Self:
        """The page that shows these."""
        first, last = (data[0].id, data[-1].id) if data else (None, None)
        return cls(data=data, first_id=first, last_id=last, has_more=has_more)


class FileList(_Page[FileObject]):
    """Some files; `has_more` says whether there are more after the last one."""


class BatchList(_Page[BatchObject]):
    """Some jobs, the newest first; `has_more` says whether there are older ones."""
