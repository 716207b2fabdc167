"""The error responses of the OpenAPI document: descriptions, schemas, and headers."""

from typing import Any

from hsoftmax.service.errors import error_codes
from hsoftmax.service.http.openai_errors import ERROR_TYPES, is_openai_path
from hsoftmax.service.http.request_context import COMPUTE_TIME, DIGEST, QUEUE_TIME, REQUEST_ID

Json = dict[str, Any]

_ERROR = "Error"
_OPENAI_ERROR = "OpenAIError"  # of files and batches
_SENTENCE = "one sentence that says what was received and what was expected"
_REQUEST_ID = "the value of the header x-request-id"
_CODE = "stable code for programs"
_HEADERS = {
    REQUEST_ID: "id of the request: the client's if it has only safe characters, else a new one",
    DIGEST: "digest of the bundle",
    QUEUE_TIME: "milliseconds in the queue",
    COMPUTE_TIME: "milliseconds of computing",
}
_DESCRIPTIONS = {
    400: "the body is not JSON, or not in the format of its content-type",
    401: "no API key, or an unknown one",
    403: "the key does not allow this request",
    404: "no such bundle, version, task, file or job",
    405: "the route does not support the method",
    406: "the response is not available in an accepted format",
    408: "the body arrived too slowly",
    409: "the request conflicts with the current state",
    413: "the body, the rows or the response exceed a limit",
    415: "the format is not supported",
    416: "the file does not have the requested range",
    422: "the body is well-formed, but invalid for this bundle",
    429: "the service is overloaded",
    500: "the service failed",
    503: "the service is not ready",
    504: "there was no result within the timeout",
    507: "there is no room for more files",
}


def add_errors(document: Json) -> None:
    """Add the error responses to every operation, and the headers to every response."""
    schemas = document["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas[_ERROR], schemas[_OPENAI_ERROR] = _error_schema(), _openai_error_schema()
    for path, operations in document["paths"].items():
        name = _OPENAI_ERROR if is_openai_path(path) else _ERROR
        content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
        for operation in operations.values():
            _describe(operation["responses"], content)


def _describe(responses: Json, content: Json) -> None:
    responses.setdefault("default", {})
    for status, response in responses.items():
        if not status.startswith("2"):
            text = _DESCRIPTIONS[int(status)] if status.isdigit() else "any other error"
            response |= {"content": content, "description": text}
        response["headers"] = {
            name.decode(): {"description": text, "schema": {"type": "string"}}
            for name, text in _HEADERS.items()
        }


def _error_schema() -> Json:
    return _object(error=_text(_SENTENCE), code=_code(), request_id=_text(_REQUEST_ID))


def _openai_error_schema() -> Json:
    param = {"type": ["string", "null"], "description": "the parameter that a 422 is about"}
    types = {"type": "string", "enum": list(ERROR_TYPES)}
    error = _object(message=_text(_SENTENCE), type=types, param=param, code=_code())
    return _object(error=error, request_id=_text(_REQUEST_ID))


def _code() -> Json:
    return _text(_CODE) | {"enum": error_codes()}


def _object(**properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _text(description: str) -> Json:
    return {"type": "string", "description": description}
