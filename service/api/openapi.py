"""The OpenAPI document: FastAPI's for its own routes, with the raw question routes and the one
error shape written in."""

from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from hsoftmax.scoring import TASK_NAMES
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
    "error": "one sentence: what was got and what was wanted",
    "code": "for programs",
    "request_id": "as in the header x-request-id",
}
_HEADERS = {
    REQUEST_ID: "the request's own id if it was a safe one, else a new one",
    DIGEST: "names the bundle that answered",
    QUEUE_TIME: "milliseconds spent waiting",
    COMPUTE_TIME: "milliseconds spent in the graph",
}
_MATRICES = {
    form.value: {"schema": {"type": "string", "format": "binary"}}
    for form in (Format.NPY, Format.ARROW)
}
_QUESTION_ERRORS = (400, 404, 406, 408, 413, 415, 422, 429, 500, 503, 504)
_META = {
    400: "not JSON, or not in the format that it says",
    401: "no key, or one that is not known",
    403: "a key that does not open this",
    404: "unknown bundle, version or task",
    405: "another method",
    406: "not in the format that is wanted",
    408: "a body that came too slowly",
    409: "what is there is in the way",
    413: "a body, rows or an answer beyond the limits",
    415: "a format that is not known here",
    422: "well-formed but impossible",
    429: "overloaded: too much is waiting",
    500: "a fault of the service",
    503: "not ready",
    504: "no answer within its time",
    507: "no room for more files",
}


def document(app: FastAPI) -> Json:
    """The whole document; FastAPI's `app.openapi` is replaced by it."""
    if app.openapi_schema is None:
        made: Json = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
        )
        _add_questions(made)
        made["paths"][SCORE_PATH] = {"post": score_operation()}
        _add_errors(made)
        app.openapi_schema = made
    return app.openapi_schema


def error_codes() -> list[str]:
    """Every `code` that an error may have."""
    return sorted({kind.code for kind in _descendants(ServiceError)})


def _add_questions(made: Json) -> None:
    forms = [form for operation in OPERATIONS for form in (operation.query, operation.response)]
    _, schemas = msgspec.json.schema_components(forms, ref_template=_SCHEMA)
    made["components"]["schemas"] |= schemas
    for operation in OPERATIONS:
        for name in (operation.name, *operation.aliases):
            made["paths"][operation_path(name)] = {"post": _operation(operation, name)}


def _operation(operation: Operation, route_name: str) -> Json:
    """One route of an operation; the route of an alias is deprecated."""
    alias = {"deprecated": True, "summary": f"Deprecated alias of {operation.name}"}
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    query = _content(_reference(operation.query)) | {"required": True}
    query["content"]["application/json"]["example"] = operation.example
    answer = _content(_reference(operation.response)) | {"description": "the answer"}
    if "inputs" in operation.query.__struct_fields__:
        query["content"] |= _MATRICES
        answer["content"] |= _MATRICES
    return {
        "tags": ["questions"],
        "summary": operation.summary,
        "operationId": route_name,
        **(alias if route_name in operation.aliases else {}),
        "parameters": [name],
        "requestBody": query,
        "responses": {"200": answer, **{str(s): {} for s in _QUESTION_ERRORS}},
    }


def _add_errors(made: Json) -> None:
    """Give every operation its errors in the one shape, and every answer its headers."""
    schemas = made["components"]["schemas"]
    for invented in ("HTTPValidationError", "ValidationError"):
        schemas.pop(invented, None)
    schemas["Error"] = _error_schema()
    for operation in (op for path in made["paths"].values() for op in path.values()):
        responses = operation["responses"]
        responses.setdefault("default", {})
        for status, response in responses.items():
            if status != "200":
                what = _META.get(int(status)) if status.isdigit() else "any other error"
                response |= _content(_ERROR) | {"description": what}
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


def _reference(form: type) -> Json:
    return {"$ref": _SCHEMA.format(name=form.__name__)}


def _content(schema: Json) -> Json:
    return {"content": {"application/json": {"schema": schema}}}


def _descendants(kind: type[ServiceError]) -> list[type[ServiceError]]:
    direct = kind.__subclasses__()
    return direct + [below for child in direct for below in _descendants(child)]


_ANSWERS = (400, 404, 406, 408, 413, 415, 422, 429, 500, 503)
_PARAMETERS: dict[str, tuple[str, Json]] = {
    "task": ("what is asked of every row",
             {"type": "string", "enum": list(TASK_NAMES), "default": TASK_NAMES[0]}),
    "k": ("of `top_k`: how many targets", {"type": "integer", "minimum": 1, "default": 10}),
    "max_blocks": ("of `top_k`: most blocks to open for a row; 0 is no limit",
                   {"type": "integer", "minimum": 0, "default": 0}),
    "num_samples": ("of `sample`: targets to draw for each row",
                    {"type": "integer", "minimum": 1, "default": 1}),
    "seed": ("of `sample`: makes the draw repeatable",
             {"type": "integer", "minimum": 0, "default": 0}),
    "oov": ("of `perplexity`: what becomes of a label that the bundle does not have",
            {"type": "string", "enum": ["error", "exclude"], "default": "error"}),
    "log_base": ("of `perplexity`: the unit of log-probabilities; e by default",
                 {"type": "number", "exclusiveMinimum": 0}),
    "version": ("a version that is served; the highest by default", {"type": "string"}),
}  # fmt: skip
_EXAMPLE = '{"id": 1, "input": [0.1, -0.2, 0.3], "target": 5}\n'


def score_operation() -> Json:
    """Rows in, records out, one line or batch after another."""
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    asked = [
        {"name": parameter, "in": "query", "description": text, "schema": schema}
        for parameter, (text, schema) in _PARAMETERS.items()
    ]
    return {
        "tags": ["questions"],
        "summary": "Many rows as a stream: a record for each, in order, and a summary",
        "operationId": "score",
        "parameters": [name, *asked],
        "requestBody": {"content": _score_content(_EXAMPLE), "required": True},
        "responses": {
            "200": {
                "content": _score_content(None),
                "description": "the records, and a summary last",
            },
            **{str(status): {} for status in _ANSWERS},
        },
    }


def _score_content(example: str | None) -> Json:
    lines: Json = {"schema": {"type": "string"}}
    if example is not None:
        lines["example"] = example
    arrow = {"schema": {"type": "string", "format": "binary"}}
    return {StreamMediaType.LINES.value: lines, StreamMediaType.ARROW.value: arrow}
