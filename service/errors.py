"""What can go wrong with a request or with the start of the service.

    ServiceError                     status  code
    ├── Malformed                       400  invalid_json
    ├── NotFound                        404  not_found
    │   ├── UnknownBundle                    unknown_bundle
    │   ├── UnknownVersion                   unknown_version
    │   └── UnknownTask                      unknown_task
    ├── MethodNotAllowed                405  method_not_allowed
    ├── TooLarge                        413  too_large
    ├── UnsupportedMediaType            415  unsupported_media_type
    ├── InvalidQuery                    422  invalid_query
    │   ├── TargetOutOfRange                 target_out_of_range
    │   └── UnknownLabel                     unknown_label
    ├── Internal                        500  internal
    │   └── InferenceFailed                  inference_failed
    └── NotReady                        503  not_ready
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
    retry_after: ClassVar[int | None] = None


class Malformed(ServiceError):
    """A body that cannot be read as JSON at all."""

    status = 400
    code = "invalid_json"


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


class MethodNotAllowed(ServiceError):
    """The route is there, for another method."""

    status = 405
    code = "method_not_allowed"


class TooLarge(ServiceError):
    """A body, a number of rows or an answer beyond the limits."""

    status = 413
    code = "too_large"


class UnsupportedMediaType(ServiceError):
    """A body that says it is something else than JSON."""

    status = 415
    code = "unsupported_media_type"


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


class StartError(UserError):
    """The service cannot start as it was told to; the text is one line for its operator."""
