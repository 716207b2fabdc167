"""The gRPC status of each ServiceError, and the metadata that goes with it."""

import grpc

from hsoftmax.service.errors import ServiceError

Metadata = tuple[tuple[str, str], ...]

ERROR_CODE = "x-hsoftmax-code"
_OK = 200
_MAX_DETAIL_CHARACTERS = 1000  # clients refuse trailers of more than 8 KiB

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    405: grpc.StatusCode.UNIMPLEMENTED,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.INVALID_ARGUMENT,  # it never helps to try again
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
    507: grpc.StatusCode.RESOURCE_EXHAUSTED,
}


def status_code(error: ServiceError) -> grpc.StatusCode:
    """Return the status of an error; INTERNAL for those that are the service's fault."""
    return _CODES.get(error.status, grpc.StatusCode.INTERNAL)


def status_number(status: int) -> int:
    """Return the number of the gRPC status of an outcome, by its status of HTTP; 0 is no answer."""
    if status == _OK:
        return 0
    code = _CODES.get(status, grpc.StatusCode.INTERNAL) if status else grpc.StatusCode.CANCELLED
    number: int = code.value[0]
    return number


def detail(error: ServiceError) -> str:
    """Return the sentence of an error, cut to what a trailer may hold."""
    return str(error)[:_MAX_DETAIL_CHARACTERS]


def error_metadata(error: ServiceError) -> Metadata:
    """Return the error's code, and for an error that passes the time after which to try again."""
    metadata = ((ERROR_CODE, error.code),)
    if error.retry_after is None:
        return metadata
    pushback = str(error.retry_after * 1000)  # gRPC's own clients read it
    return (
        *metadata,
        ("retry-after", str(error.retry_after)),
        ("grpc-retry-pushback-ms", pushback),
    )
