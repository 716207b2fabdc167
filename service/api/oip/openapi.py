"""The route `infer` in the OpenAPI document; FastAPI describes the other routes under /v2."""

from typing import Any

from hsoftmax.service.inference.tensors.datatypes import DATATYPES

from .infer import INFER_PATH, INFER_VERSION_PATH

Json = dict[str, Any]

_JSON, _RAW = "application/json", "application/octet-stream"
_ERRORS = (400, 404, 408, 413, 415, 422, 429, 500, 503, 504)
_REQUEST, _RESPONSE = "InferenceRequest", "InferenceResponse"
_INPUT, _OUTPUT, _REQUESTED = "RequestInput", "ResponseOutput", "RequestOutput"
_NAME: Json = {"type": "string"}
_PARAMETERS: Json = {
    "type": "object",
    "additionalProperties": {"type": ["boolean", "number", "string"]},
}
_DATA: Json = {
    "type": "array",
    "items": {},
    "description": "the elements in row order, flat or nested; absent where the bytes are raw",
}


def infer_schemas() -> Json:
    """Return the schemas of requests and responses, by name."""
    tensor: Json = {
        "name": _NAME,
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "datatype": {"type": "string", "enum": list(DATATYPES)},
        "parameters": _PARAMETERS,
        "data": _DATA,
    }
    required = ["name", "shape", "datatype"]
    return {
        _INPUT: _object(required, tensor),
        _OUTPUT: _object(required, tensor),
        _REQUESTED: _object(["name"], {"name": _NAME, "parameters": _PARAMETERS}),
        _REQUEST: _object(
            ["inputs"],
            {
                "id": _NAME,
                "parameters": _PARAMETERS,
                "inputs": _list_of(_INPUT),
                "outputs": _list_of(_REQUESTED),
            },
        ),
        _RESPONSE: _object(
            ["model_name", "model_version", "outputs"],
            {
                "model_name": _NAME,
                "model_version": _NAME,
                "id": _NAME,
                "parameters": _PARAMETERS,
                "outputs": _list_of(_OUTPUT),
            },
        ),
    }


def infer_paths() -> Json:
    """Return the operations of `infer` by path."""
    return {
        INFER_PATH: {"post": _operation("infer", "Infer with a bundle", ["name"])},
        INFER_VERSION_PATH: {
            "post": _operation("infer_version", "Infer with one version", ["name", "version"])
        },
    }


def infer_example(width: int) -> Json:
    """Return a request for a bundle with hidden states of this width."""
    row = [round((-1) ** i * (i % 10 + 1) / 10, 1) for i in range(width)]
    hidden = {"name": "hidden", "shape": [1, width], "datatype": "FP32", "data": row}
    return {"inputs": [hidden], "outputs": [{"name": "top_k_target"}, {"name": "top_k_prob"}]}


def _operation(operation_id: str, summary: str, parameters: list[str]) -> Json:
    raw = {"schema": {"type": "string", "format": "binary"}}
    request = {"schema": _reference(_REQUEST), "example": infer_example(3)}
    response = {"schema": _reference(_RESPONSE)}
    return {
        "tags": ["open inference"],
        "summary": summary,
        "operationId": operation_id,
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in parameters
        ],
        "requestBody": {"required": True, "content": {_JSON: request, _RAW: raw}},
        "responses": {
            "200": {"description": "the outputs", "content": {_JSON: response, _RAW: raw}},
            **{str(status): {} for status in _ERRORS},
        },
    }


def _object(required: list[str], properties: Json) -> Json:
    return {"type": "object", "required": required, "properties": properties}


def _list_of(name: str) -> Json:
    return {"type": "array", "items": _reference(name)}


def _reference(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}
