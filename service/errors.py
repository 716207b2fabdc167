"""Errors of requests, each with an HTTP status and a code, and of the service's start.

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
    ├── RolloutInRepository             409  rollout_in_repository
    ├── FileInUse                       409  file_in_use
    ├── KeyReused                       409  idempotency_key_reused
    ├── BatchActive                     409  batch_active
    ├── BatchEnded                      409  batch_ended
    ├── TooLarge                        413  too_large
    ├── UrlTooLong                      414  url_too_long
    ├── UnsupportedMediaType            415  unsupported_media_type
    ├── RangeNotSatisfiable             416  range_not_satisfiable
    ├── InvalidQuery                    422  invalid_query
    │   ├── TargetOutOfRange                 target_out_of_range
    │   ├── UnknownLabel                     unknown_label
    │   ├── UnknownNode                      unknown_node
    │   ├── LogitsOverflow                   logits_overflow
    │   ├── DuplicateId                      duplicate_id
    │   └── InvalidRollout                   invalid_rollout
    ├── Overloaded                      429  overloaded
    │   ├── RateLimited                      rate_limited
    │   └── TooManyJobs                      too_many_jobs
    ├── HeadTooLarge                    431  head_too_large
    ├── Internal                        500  internal
    │   └── InferenceFailed                  inference_failed
    ├── NotSupported                    501  not_supported
    ├── NotReady                        503  not_ready
    │   ├── NotAlive                         not_alive
    │   ├── JobsUnavailable                  jobs_unavailable
    │   ├── StoreDown                        store_unavailable
    │   └── DeviceFailed                     device_lost
    ├── BundleChanged                   503  bundle_changed
    ├── DeviceFull                      503  device_out_of_memory
    ├── DeadlineExceeded                504  deadline_exceeded
    └── StorageFull                     507  storage_full
    StartError                       the service cannot start; one line for its operator

The client reads the message of a ServiceError: one sentence that says what was got and what was
expected, without internals.
"""

from functools import cache
from typing import ClassVar

from hsoftmax.models import UserError


class ServiceError(UserError):
    """Base of all errors that are sent to a client, in the JSON shape of its route."""

    status: ClassVar[int]
    code: ClassVar[str]
    retry_after: int | None = None

    def __init_subclass__(cls, *, code: str, status: int | None = None) -> None:
        """Set the class's code, and its status if it differs from the parent's."""
        super().__init_subclass__()
        cls.code = code
        if status is not None:
            cls.status = status


class Malformed(ServiceError, status=400, code="invalid_json"):
    """The body is not JSON."""


class Unreadable(ServiceError, status=400, code="unreadable_body"):
    """The body does not have the format or the compression that its headers name."""


class NotHttp(ServiceError, status=400, code="invalid_http"):
    """The bytes of a connection are not an HTTP request."""


class Unauthorized(ServiceError, status=401, code="unauthorized"):
    """The request has no API key, or an unknown one."""


class Forbidden(ServiceError, status=403, code="forbidden"):
    """The API key does not allow this request."""


class NotFound(ServiceError, status=404, code="not_found"):
    """There is no such route."""


class UnknownBundle(NotFound, code="unknown_bundle"):
    """No bundle of that name is served."""


class UnknownVersion(NotFound, code="unknown_version"):
    """The bundle is served, but not in that version."""


class UnknownTask(NotFound, code="unknown_task"):
    """The bundle has no graph for the task."""


class UnknownFile(NotFound, code="unknown_file"):
    """No such file was uploaded or written by a job, or is in a store, or it was deleted."""


class UnknownBatch(NotFound, code="unknown_batch"):
    """There is no such job, or it ended so long ago that it was deleted."""


class MethodNotAllowed(ServiceError, status=405, code="method_not_allowed"):
    """The route exists, but not for this method."""


class NotAcceptable(ServiceError, status=406, code="not_acceptable"):
    """The response cannot be given in a format that the client accepts."""


class SlowBody(ServiceError, status=408, code="slow_body"):
    """The body took too long to arrive."""


class BundleRefused(ServiceError, status=409, code="bundle_refused"):
    """A reload found a version that cannot be loaded; the old one stays served."""


class RolloutInRepository(ServiceError, status=409, code="rollout_in_repository"):
    """A file in the repository decides about the versions, for all replicas."""


class FileInUse(ServiceError, status=409, code="file_in_use"):
    """A job still needs to read the file."""


class KeyReused(ServiceError, status=409, code="idempotency_key_reused"):
    """The idempotency key was used before with another body."""


class BatchActive(ServiceError, status=409, code="batch_active"):
    """The job has not ended and cannot be deleted."""


class BatchEnded(ServiceError, status=409, code="batch_ended"):
    """The job has ended and cannot be cancelled."""


class TooLarge(ServiceError, status=413, code="too_large"):
    """The body, the number of rows or the response exceeds a limit."""


class UrlTooLong(ServiceError, status=414, code="url_too_long"):
    """The URL of a request is longer than the service reads."""


class HeadTooLarge(ServiceError, status=431, code="head_too_large"):
    """The headers of a request, or its trailers, are more than the service reads."""


class NotSupported(ServiceError, status=501, code="not_supported"):
    """A method or a transfer coding of HTTP that the service does not have."""


class UnsupportedMediaType(ServiceError, status=415, code="unsupported_media_type"):
    """The format or the compression of the body is not supported."""


class RangeNotSatisfiable(ServiceError, status=416, code="range_not_satisfiable"):
    """The requested range is not in the file."""


class InvalidQuery(ServiceError, status=422, code="invalid_query"):
    """The query is JSON, but this bundle cannot answer it."""


class TargetOutOfRange(InvalidQuery, code="target_out_of_range"):
    """A target is not in [0, num_targets)."""


class UnknownLabel(InvalidQuery, code="unknown_label"):
    """The bundle does not have the label."""


class UnknownNode(InvalidQuery, code="unknown_node"):
    """The hierarchy of the bundle has no node of that number."""


class LogitsOverflow(InvalidQuery, code="logits_overflow"):
    """The numbers of a row are finite, but so large that its logits are not."""


class DuplicateId(InvalidQuery, code="duplicate_id"):
    """A row has the same id as an earlier row."""


class InvalidRollout(InvalidQuery, code="invalid_rollout"):
    """The rollout does not add up, or names a version that is not served."""


class Overloaded(ServiceError, status=429, code="overloaded"):
    """The queue is full; there may be room after `retry_after` whole seconds."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RateLimited(Overloaded, code="rate_limited"):
    """A rate limit of the service or of the API key is reached."""


class TooManyJobs(Overloaded, code="too_many_jobs"):
    """The maximum number of jobs is waiting or running."""


class Internal(ServiceError, status=500, code="internal"):
    """The service has failed; the log has the reason under the request's id."""


class InferenceFailed(Internal, code="inference_failed"):
    """A graph failed, or its output is not a number."""


class NotReady(ServiceError, status=503, code="not_ready"):
    """The service is loading, has no bundle, or is draining."""

    retry_after = 1


class NotAlive(NotReady, code="not_alive"):
    """A compute thread has ended or is stuck, so the process should be restarted."""


class JobsUnavailable(NotReady, code="jobs_unavailable"):
    """The state directory for files and jobs cannot be used."""


class StoreDown(NotReady, code="store_unavailable"):
    """The store that a job is to read does not answer now."""


class DeviceFailed(NotReady, code="device_lost"):
    """The device failed; liveness fails from then on, so that the process is restarted."""


class BundleChanged(ServiceError, status=503, code="bundle_changed"):
    """The files of the bundle were changed in place; it is loaded again or refused soon."""

    retry_after = 1


class DeviceFull(ServiceError, status=503, code="device_out_of_memory"):
    """The device has too little memory for this run; others still succeed."""

    retry_after = 1


class DeadlineExceeded(ServiceError, status=504, code="deadline_exceeded"):
    """There was no result within the timeout of the client or the service."""


class StorageFull(ServiceError, status=507, code="storage_full"):
    """There is no room for more files."""


class StartError(UserError):
    """The service cannot start; the message is one line for its operator."""


def error_codes() -> list[str]:
    """Return every `code` that an error can have."""
    return sorted(_statuses())


def status_of_code(code: str) -> int:
    """Return the HTTP status of an error with this code; 422 for the codes of rows alone."""
    return _statuses().get(code, InvalidQuery.status)


@cache
def _statuses() -> dict[str, int]:
    return {one.code: one.status for one in _subclasses(ServiceError)}


def _subclasses(error_type: type[ServiceError]) -> list[type[ServiceError]]:
    direct = error_type.__subclasses__()
    return direct + [below for child in direct for below in _subclasses(child)]
