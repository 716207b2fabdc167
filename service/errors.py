"""What can go wrong with a request or with the start of the service.

    ServiceError                     status  code
    ├── Malformed                       400  invalid_json
    ├── Unreadable                      400  unreadable_body
    ├── NotHttp                         400  invalid_http
    ├── Unauthorized                    401  unauthorized
    ├── Forbidden                       403  forbidden
    ├── NotFound                        404  not_found
    │   ├── UnknownBundle                    unknown_bundle
    │   ├── UnknownVersion                   unknown_version
    │   ├── UnknownTask                      unknown_task
    │   ├── UnknownFile                      unknown_file
    │   └── UnknownBatch                     unknown_batch
    ├── MethodNotAllowed                405  method_not_allowed
    ├── NotAcceptable                   406  not_acceptable
    ├── SlowBody                        408  slow_body
    ├── BundleRefused                   409  bundle_refused
    ├── FileInUse                       409  file_in_use
    ├── KeyReused                       409  idempotency_key_reused
    ├── BatchEnded                      409  batch_ended
    ├── TooLarge                        413  too_large
    ├── UnsupportedMediaType            415  unsupported_media_type
    ├── RangeNotSatisfiable             416  range_not_satisfiable
    ├── InvalidQuery                    422  invalid_query
    │   ├── TargetOutOfRange                 target_out_of_range
    │   ├── UnknownLabel                     unknown_label
    │   └── DuplicateId                      duplicate_id
    ├── Overloaded                      429  overloaded
    │   └── TooManyJobs                      too_many_jobs
    ├── Internal                        500  internal
    │   └── InferenceFailed                  inference_failed
    ├── NotReady                        503  not_ready
    │   ├── NotAlive                         not_alive
    │   └── JobsUnavailable                  jobs_unavailable
    ├── DeadlineExceeded                504  deadline_exceeded
    └── StorageFull                     507  storage_full
    StartError                       the service cannot start; one line for its operator

The text of a ServiceError is read by the client: one sentence, what was got and what was wanted,
and nothing of the inside.
"""

from typing import ClassVar

from models import UserError


class ServiceError(UserError):
    """Base of all that is answered in the one error shape."""

    status: ClassVar[int]
    code: ClassVar[str]
    retry_after: int | None = None


class Malformed(ServiceError):
    """A body that cannot be read as JSON at all."""

    status = 400
    code = "invalid_json"


class Unreadable(ServiceError):
    """A body that is not in the format or the compression that it says."""

    status = 400
    code = "unreadable_body"


class NotHttp(ServiceError):
    """What came down a connection is no request at all."""

    status = 400
    code = "invalid_http"


class Unauthorized(ServiceError):
    """No key, or one that is not known."""

    status = 401
    code = "unauthorized"


class Forbidden(ServiceError):
    """A key that does not open this."""

    status = 403
    code = "forbidden"


class NotFound(ServiceError):
    """No such route."""

    status = 404
    code = "not_found"


class UnknownBundle(NotFound):
    """No bundle of that name is served."""

    code = "unknown_bundle"


class UnknownVersion(NotFound):
    """The bundle is served, but not in that version."""

    code = "unknown_version"


class UnknownTask(NotFound):
    """The bundle has no graph for what was asked."""

    code = "unknown_task"


class UnknownFile(NotFound):
    """No such file was uploaded or made by a job, or it is gone."""

    code = "unknown_file"


class UnknownBatch(NotFound):
    """No such job, or it ended so long ago that it is gone."""

    code = "unknown_batch"


class MethodNotAllowed(ServiceError):
    """The route is there, for another method."""

    status = 405
    code = "method_not_allowed"


class NotAcceptable(ServiceError):
    """An answer that cannot be given in the format that is wanted."""

    status = 406
    code = "not_acceptable"


class SlowBody(ServiceError):
    """A body that took too long to arrive."""

    status = 408
    code = "slow_body"


class BundleRefused(ServiceError):
    """A reload that found a version which cannot be served; what was served still is."""

    status = 409
    code = "bundle_refused"


class FileInUse(ServiceError):
    """A file that a job has yet to read."""

    status = 409
    code = "file_in_use"


class KeyReused(ServiceError):
    """An idempotency key that came with another body before."""

    status = 409
    code = "idempotency_key_reused"


class BatchEnded(ServiceError):
    """A job that can no longer be cancelled."""

    status = 409
    code = "batch_ended"


class TooLarge(ServiceError):
    """A body, a number of rows or an answer beyond the limits."""

    status = 413
    code = "too_large"


class UnsupportedMediaType(ServiceError):
    """A body in a format or a compression that is not known here."""

    status = 415
    code = "unsupported_media_type"


class RangeNotSatisfiable(ServiceError):
    """A part of a file that it does not have."""

    status = 416
    code = "range_not_satisfiable"


class InvalidQuery(ServiceError):
    """JSON, but not a question that this bundle can answer."""

    status = 422
    code = "invalid_query"


class TargetOutOfRange(InvalidQuery):
    """A target that is not in [0, num_targets)."""

    code = "target_out_of_range"


class UnknownLabel(InvalidQuery):
    """A label that the bundle does not have."""

    code = "unknown_label"


class DuplicateId(InvalidQuery):
    """A row whose id an earlier one has."""

    code = "duplicate_id"


class Overloaded(ServiceError):
    """Too much is waiting; there may be room again after `retry_after` whole seconds."""

    status = 429
    code = "overloaded"

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooManyJobs(Overloaded):
    """As many jobs wait as may."""

    code = "too_many_jobs"


class Internal(ServiceError):
    """A fault of the service; the log has it under the request's id."""

    status = 500
    code = "internal"


class InferenceFailed(Internal):
    """A graph that stopped, or gave something that is not a number."""

    code = "inference_failed"


class NotReady(ServiceError):
    """Loading, empty or draining."""

    status = 503
    code = "not_ready"
    retry_after = 1


class NotAlive(NotReady):
    """A compute thread has ended, or is stuck: the process should be started again."""

    code = "not_alive"


class JobsUnavailable(NotReady):
    """Files and jobs have no place to be kept."""

    code = "jobs_unavailable"


class DeadlineExceeded(ServiceError):
    """No answer within the time that the client, or the service, gives it."""

    status = 504
    code = "deadline_exceeded"


class StorageFull(ServiceError):
    """No room for more files."""

    status = 507
    code = "storage_full"


class StartError(UserError):
    """The service cannot start as it was told to; the text is one line for its operator."""
