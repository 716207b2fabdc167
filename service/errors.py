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
    ├── UrlTooLong                      414  url_too_long
    ├── UnsupportedMediaType            415  unsupported_media_type
    ├── RangeNotSatisfiable             416  range_not_satisfiable
    ├── InvalidQuery                    422  invalid_query
    │   ├── TargetOutOfRange                 target_out_of_range
    │   ├── UnknownLabel                     unknown_label
    │   └── DuplicateId                      duplicate_id
    ├── Overloaded                      429  overloaded
    │   └── TooManyJobs                      too_many_jobs
    ├── HeadTooLarge                    431  head_too_large
    ├── Internal                        500  internal
    │   └── InferenceFailed                  inference_failed
    ├── NotSupported                    501  not_supported
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

from hsoftmax.models import UserError


class ServiceError(UserError):
    """Base of all that is answered in the one error shape."""

    status: ClassVar[int]
    code: ClassVar[str]
    retry_after: int | None = None

    def __init_subclass__(cls, *, code: str, status: int | None = None) -> None:
        """Every kind has a code of its own, and a status, if only the one of its parent."""
        super().__init_subclass__()
        cls.code = code
        if status is not None:
            cls.status = status


class Malformed(ServiceError, status=400, code="invalid_json"):
    """A body that cannot be read as JSON at all."""


class Unreadable(ServiceError, status=400, code="unreadable_body"):
    """A body that is not in the format or the compression that it says."""


class NotHttp(ServiceError, status=400, code="invalid_http"):
    """What came down a connection is no request at all."""


class Unauthorized(ServiceError, status=401, code="unauthorized"):
    """No key, or one that is not known."""


class Forbidden(ServiceError, status=403, code="forbidden"):
    """A key that does not open this."""


class NotFound(ServiceError, status=404, code="not_found"):
    """No such route."""


class UnknownBundle(NotFound, code="unknown_bundle"):
    """No bundle of that name is served."""


class UnknownVersion(NotFound, code="unknown_version"):
    """The bundle is served, but not in that version."""


class UnknownTask(NotFound, code="unknown_task"):
    """The bundle has no graph for what was asked."""


class UnknownFile(NotFound, code="unknown_file"):
    """No such file was uploaded or made by a job, or it is gone."""


class UnknownBatch(NotFound, code="unknown_batch"):
    """No such job, or it ended so long ago that it is gone."""


class MethodNotAllowed(ServiceError, status=405, code="method_not_allowed"):
    """The route is there, for another method."""


class NotAcceptable(ServiceError, status=406, code="not_acceptable"):
    """An answer that cannot be given in the format that is wanted."""


class SlowBody(ServiceError, status=408, code="slow_body"):
    """A body that took too long to arrive."""


class BundleRefused(ServiceError, status=409, code="bundle_refused"):
    """A reload that found a version which cannot be served; what was served still is."""


class FileInUse(ServiceError, status=409, code="file_in_use"):
    """A file that a job has yet to read."""


class KeyReused(ServiceError, status=409, code="idempotency_key_reused"):
    """An idempotency key that came with another body before."""


class BatchEnded(ServiceError, status=409, code="batch_ended"):
    """A job that can no longer be cancelled."""


class TooLarge(ServiceError, status=413, code="too_large"):
    """A body, a number of rows or an answer beyond the limits."""


class UrlTooLong(ServiceError, status=414, code="url_too_long"):
    """The URL of a request is longer than the service reads."""


class HeadTooLarge(ServiceError, status=431, code="head_too_large"):
    """The headers of a request, or its trailers, are more than the service reads."""


class NotSupported(ServiceError, status=501, code="not_supported"):
    """A method or a transfer coding of HTTP that the service does not have."""


class UnsupportedMediaType(ServiceError, status=415, code="unsupported_media_type"):
    """A body in a format or a compression that is not known here."""


class RangeNotSatisfiable(ServiceError, status=416, code="range_not_satisfiable"):
    """A part of a file that it does not have."""


class InvalidQuery(ServiceError, status=422, code="invalid_query"):
    """JSON, but not a question that this bundle can answer."""


class TargetOutOfRange(InvalidQuery, code="target_out_of_range"):
    """A target that is not in [0, num_targets)."""


class UnknownLabel(InvalidQuery, code="unknown_label"):
    """A label that the bundle does not have."""


class DuplicateId(InvalidQuery, code="duplicate_id"):
    """A row whose id an earlier one has."""


class Overloaded(ServiceError, status=429, code="overloaded"):
    """Too much is waiting; there may be room again after `retry_after` whole seconds."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooManyJobs(Overloaded, code="too_many_jobs"):
    """As many jobs wait as may."""


class Internal(ServiceError, status=500, code="internal"):
    """A fault of the service; the log has it under the request's id."""


class InferenceFailed(Internal, code="inference_failed"):
    """A graph that stopped, or gave something that is not a number."""


class NotReady(ServiceError, status=503, code="not_ready"):
    """Loading, empty or draining."""

    retry_after = 1


class NotAlive(NotReady, code="not_alive"):
    """A compute thread has ended, or is stuck: the process should be started again."""


class JobsUnavailable(NotReady, code="jobs_unavailable"):
    """Files and jobs have no place to be kept."""


class DeadlineExceeded(ServiceError, status=504, code="deadline_exceeded"):
    """No answer within the time that the client, or the service, gives it."""


class StorageFull(ServiceError, status=507, code="storage_full"):
    """No room for more files."""


class StartError(UserError):
    """The service cannot start as it was told to; the text is one line for its operator."""
