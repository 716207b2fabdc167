"""Builds the OpenAPI document.

FastAPI describes its own routes. This module adds the operations, `score`, the error responses, the
keys, and examples that a served bundle answers.
"""

from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from hsoftmax.scoring import TASK_NAMES
from hsoftmax.scoring.choices import DEFAULT_K
from hsoftmax.service.context import AppContext
from hsoftmax.service.errors import error_codes
from hsoftmax.service.http.content_types import Format
from hsoftmax.service.inference.operation import VERSION_DESCRIPTION
from hsoftmax.service.inference.operations import OPERATIONS, Operation
from hsoftmax.service.jobs.submission import BatchQuery
from hsoftmax.service.middleware.authentication import PUBLIC_PATHS
from hsoftmax.service.streaming.media_types import StreamMediaType

from . import SCORE_PATH, operation_path
from .oip.openapi import infer_paths, infer_schemas
from .openapi_errors import add_errors
from .openapi_examples import fit_examples

__all__ = ["document", "error_codes", "score_operation"]

Json = dict[str, Any]

_SCHEMA = "#/components/schemas/{name}"
_API_KEY, _ADMIN_KEY = "ApiKey", "AdminKey"
_SECURITY_SCHEMES = {
    _API_KEY: {
        "type": "http", "scheme": "bearer",
        "description": "one of the service's API keys, if it has any",
    },
    _ADMIN_KEY: {"type": "http", "scheme": "bearer", "description": "the service's admin key"},
}  # fmt: skip
_MATRICES = {
    one.value: {"schema": {"type": "string", "format": "binary"}}
    for one in (Format.NPY, Format.ARROW)
}
_OPERATION_ERRORS = (400, 404, 406, 408, 413, 415, 422, 429, 500, 503, 504)


def document(app: FastAPI, context: AppContext) -> Json:
    """Return the whole document, with examples for the bundles that are served now.

    `create_app` replaces FastAPI's `openapi` by it.
    """
    if app.openapi_schema is None:
        built: Json = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
        )
        _add_operations(built)
        built["paths"][SCORE_PATH] = {"post": score_operation()}
        built["paths"] |= infer_paths()
        built["components"]["schemas"] |= infer_schemas()
        add_errors(built)
        _add_security(built, required=context.keys.required)
        app.openapi_schema = built
    repository = context.repository
    return fit_examples(app.openapi_schema, map(repository.find, repository.names()))


def _add_security(built: Json, *, required: bool) -> None:
    """Say which key a route needs: none for health, the admin's for changes, else an API key."""
    built["components"]["securitySchemes"] = _SECURITY_SCHEMES
    optional: list[Json] = [] if required else [{}]
    built["security"] = [*optional, {_API_KEY: []}]
    for path, operations in built["paths"].items():
        for operation in operations.values():
            if path in PUBLIC_PATHS:
                operation["security"] = []
            elif "admin" in operation["tags"]:
                operation["security"] = [{_ADMIN_KEY: []}]


def _add_operations(built: Json) -> None:
    types: list[type] = [BatchQuery]
    types += [one for operation in OPERATIONS for one in (operation.query, operation.response)]
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
        if operation.has_matrix:
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


def _reference(schema_type: type) -> Json:
    return {"$ref": _SCHEMA.format(name=schema_type.__name__)}


def _content(schema: Json) -> Json:
    return {"content": {"application/json": {"schema": schema}}}


_SCORE_ERRORS = (400, 404, 406, 408, 413, 415, 422, 429, 500, 503)
_PARAMETERS: dict[str, tuple[str, Json]] = {
    "task": ("task to run on every row",
             {"type": "string", "enum": list(TASK_NAMES), "default": TASK_NAMES[0]}),
    "k": (f"of `top_k`: number of targets; by default {DEFAULT_K}, or all if there are fewer",
          {"type": "integer", "minimum": 1}),
    "max_blocks": ("of `top_k`: maximum number of blocks to open for a row; 0 is no limit",
                   {"type": "integer", "minimum": 0, "default": 0}),
    "threshold": ("of `top_k`: only targets with a probability above it",
                  {"type": "number", "minimum": 0, "maximum": 1}),
    "num_samples": ("of `sample`: number of targets to draw for each row",
                    {"type": "integer", "minimum": 1, "default": 1}),
    "seed": ("of `sample`: makes the draw repeatable",
             {"type": "integer", "minimum": 0, "default": 0}),
    "oov": ("of `perplexity`: treatment of a label that the bundle does not have",
            {"type": "string", "enum": ["error", "exclude"], "default": "error"}),
    "log_base": ("of `perplexity`: the unit of log-probabilities; e by default",
                 {"type": "number", "exclusiveMinimum": 0}),
    "version": (VERSION_DESCRIPTION, {"type": "string"}),
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
