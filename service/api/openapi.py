"""Builds the OpenAPI document.

FastAPI describes its own routes. This module adds the operations, `score`, and the error responses.
"""

from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from hsoftmax.scoring import TASK_NAMES
from hsoftmax.scoring.choices import DEFAULT_K
from hsoftmax.service.errors import ServiceError
from hsoftmax.service.http.content_types import Format
from hsoftmax.service.http.request_context import COMPUTE_TIME, DIGEST, QUEUE_TIME, REQUEST_ID
from hsoftmax.service.inference.operations import OPERATIONS, Operation
from hsoftmax.service.streaming.media_types import StreamMediaType

from . import SCORE_PATH, operation_path

Json = dict[str, Any]

_ERROR = {"$ref": "#/components/schemas/Error"}
_SCHEMA = "#/components/schemas/{name}"
_ERROR_FIELDS = {
    "error": "one sentence that says what was received and what was expected",
    "code": "stable code for programs",
    "request_id": "the value of the header x-request-id",
}
_HEADERS = {
    REQUEST_ID: "id of the request: the client's if it has only safe characters, else a new one",
    DIGEST: "digest of the bundle",
    QUEUE_TIME: "milliseconds in the queue",
    COMPUTE_TIME: "milliseconds of computing",
}
_MATRICES = {
    one.value: {"schema": {"type": "string", "format": "binary"}}
    for one in (Format.NPY, Format.ARROW)
}
_OPERATION_ERRORS = (400, 404, 406, 408, 413, 415, 422, 429, 500, 503, 504)
_ERROR_DESCRIPTIONS = {
    400: "the body is not JSON, or not in the format of its content-type",
    401: "no API key, or an unknown one",
    403: "the key does not allow this request",
    404: "unknown bundle, version or task",
    405: "the route does not support the method",
    406: "the response is not available in an accepted format",
    408: "the body arrived too slowly",
    409: "the request conflicts with the current state",
    413: "the body, the rows or the response exceed a limit",
    415: "the format is not supported",
    422: "the body is well-formed, but invalid for this bundle",
    429: "the service is overloaded",
    500: "the service failed",
    503: "the service is not ready",
    504: "there was no result within the timeout",
    507: "there is no room for more files",
}


def document(app: FastAPI) -> Json:
    """Return the whole document. `create_app` replaces FastAPI's `openapi` by it."""
    if app.openapi_schema is None:
        built: Json = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
        )
        _add_operations(built)
        built["paths"][SCORE_PATH] = {"post": score_operation()}
        _add_errors(built)
        app.openapi_schema = built
    return app.openapi_schema


def error_codes() -> list[str]:
    """Return every `code` that an error can have."""
    return sorted({one.code for one in _subclasses(ServiceError)})


def _add_operations(built: Json) -> None:
    types = [one for operation in OPERATIONS for one in (operation.query, operation.response)]
    _, schemas = msgspec.json.schema_components(types, ref_template=_SCHEMA)
    built["components"]["schemas"] |= schemas
    for operation in OPERATIONS:
        for name in (operation.name, *operation.aliases):
            built["paths"][operation_path(name)] = {"post": _operation(operation, name)}


def _operation(operation: Operation, route_name: str) -> Json:
    """Describe one route of an operation; the route of an alias is deprecated."""
    alias = {"deprecated": True, "summary": f"Deprecated alias of {operation.name}"}
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    query = _content(_reference(operation.query)) | {"required": True}
    query["content"]["application/json"]["example"] = operation.example
    response = _content(_reference(operation.response)) | {"description": "the result"}
    if "inputs" in operation.query.__struct_fields__:
        query["content"] |= _MATRICES
        response["content"] |= _MATRICES
    return {
        "tags": ["operations"],
        "summary": operation.summary,
        "operationId": route_name,
        **(alias if route_name in operation.aliases else {}),
        "parameters": [name],
        "requestBody": query,
        "responses": {"200": response, **{str(s): {} for s in _OPERATION_ERRORS}},
    }


def _add_errors(built: Json) -> None:
    """Add the error responses to every operation, and the headers to every response."""
    schemas = built["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["Error"] = _error_schema()
    for operation in (op for path in built["paths"].values() for op in path.values()):
        responses = operation["responses"]
        responses.setdefault("default", {})
        for status, response in responses.items():
            if status != "200":
                text = (
                    _ERROR_DESCRIPTIONS.get(int(status)) if status.isdigit() else "any other error"
                )
                response |= _content(_ERROR) | {"description": text}
            response["headers"] = _headers()


def _error_schema() -> Json:
    fields: Json = {
        name: {"type": "string", "description": text} for name, text in _ERROR_FIELDS.items()
    }
    fields["code"]["enum"] = error_codes()
    return {"type": "object", "properties": fields, "required": list(fields)}


def _headers() -> Json:
    return {
        name.decode(): {"description": text, "schema": {"type": "string"}}
        for name, text in _HEADERS.items()
    }


def _reference(schema_type: type) -> Json:
    return {"$ref": _SCHEMA.format(name=schema_type.__name__)}


def _content(schema: Json) -> Json:
    return {"content": {"application/json": {"schema": schema}}}


def _subclasses(error_type: type[ServiceError]) -> list[type[ServiceError]]:
    direct = error_type.__subclasses__()
    return direct + [below for child in direct for below in _subclasses(child)]


_SCORE_ERRORS = (400, 404, 406, 408, 413, 415, 422, 429, 500, 503)
_PARAMETERS: dict[str, tuple[str, Json]] = {
    "task": ("task to run on every row",
             {"type": "string", "enum": list(TASK_NAMES), "default": TASK_NAMES[0]}),
    "k": (f"of `top_k`: number of targets; by default {DEFAULT_K}, or all if there are fewer",
          {"type": "integer", "minimum": 1}),
    "max_blocks": ("of `top_k`: maximum number of blocks to open for a row; 0 is no limit",
                   {"type": "integer", "minimum": 0, "default": 0}),
    "num_samples": ("of `sample`: number of targets to draw for each row",
                    {"type": "integer", "minimum": 1, "default": 1}),
    "seed": ("of `sample`: makes the draw repeatable",
             {"type": "integer", "minimum": 0, "default": 0}),
    "oov": ("of `perplexity`: treatment of a label that the bundle does not have",
            {"type": "string", "enum": ["error", "exclude"], "default": "error"}),
    "log_base": ("of `perplexity`: the unit of log-probabilities; e by default",
                 {"type": "number", "exclusiveMinimum": 0}),
    "version": ("a version that is served; the highest by default", {"type": "string"}),
}  # fmt: skip
_EXAMPLE = '{"id": 1, "input": [0.1, -0.2, 0.3], "target": 5}\n'


def score_operation() -> Json:
    """Describe the route `score`."""
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    query = [
        {"name": parameter, "in": "query", "description": text, "schema": schema}
        for parameter, (text, schema) in _PARAMETERS.items()
    ]
    return {
        "tags": ["operations"],
        "summary": "Score a stream of rows: one record a row, in order, and a summary",
        "operationId": "score",
        "parameters": [name, *query],
        "requestBody": {"content": _score_content(_EXAMPLE), "required": True},
        "responses": {
            "200": {
                "content": _score_content(None),
                "description": "the records, followed by the summary",
            },
            **{str(status): {} for status in _SCORE_ERRORS},
        },
    }


def _score_content(example: str | None) -> Json:
    lines: Json = {"schema": {"type": "string"}}
    if example is not None:
        lines["example"] = example
    arrow = {"schema": {"type": "string", "format": "binary"}}
    return {StreamMediaType.LINES.value: lines, StreamMediaType.ARROW.value: arrow}
