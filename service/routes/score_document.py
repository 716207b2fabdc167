"""The route of streams as an OpenAPI operation."""

from typing import Any

from scoring import NAMES
from service.flow.forms import StreamForm

Json = dict[str, Any]

_ANSWERS = (400, 404, 406, 408, 413, 415, 422, 429, 500, 503)
_PARAMETERS: dict[str, tuple[str, Json]] = {
    "task": ("what is asked of every row",
             {"type": "string", "enum": list(NAMES), "default": NAMES[0]}),
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
        "requestBody": {"content": _content(_EXAMPLE), "required": True},
        "responses": {
            "200": {"content": _content(None), "description": "the records, and a summary last"},
            **{str(status): {} for status in _ANSWERS},
        },
    }


def _content(example: str | None) -> Json:
    lines: Json = {"schema": {"type": "string"}}
    if example is not None:
        lines["example"] = example
    arrow = {"schema": {"type": "string", "format": "binary"}}
    return {StreamForm.LINES.value: lines, StreamForm.ARROW.value: arrow}
