"""Tests of pages, metrics and the OpenAPI document: complete, correct, and without a network."""

import json
import re
from pathlib import Path

import msgspec
import pytest

from hsoftmax.service.api.openapi import error_codes
from hsoftmax.service.inference.operations import OPERATIONS
from tests.service.conftest import HIDDEN, serving

ROW = [0.5] * HIDDEN
ALIASES = ("/health", "/info", "/ping", "/version")
_MODEL, _REPOSITORY = "/v2/models/{name}", "/v2/repository"
OPEN_INFERENCE = {
    **{path: {"get"} for path in ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models",
                                  "/v2/models/stats")},
    **{f"{_MODEL}{version}{path}": {"get"} for version in ("", "/versions/{version}")
       for path in ("", "/ready", "/config", "/stats")},
    **{f"{_MODEL}{version}/infer": {"post"} for version in ("", "/versions/{version}")},
    **{f"{_REPOSITORY}/{path}": {"post"} for path in (
        "index", "models/{name}/load", "models/{name}/unload")},
}  # fmt: skip
SCHEMA_1 = Path(__file__).parents[2] / "data" / "schema_1" / "repository"
QUERIES = {
    "probabilities": [{"targets": [1]}, {"targets": [[1, 2]]}, {}, {"log": True}],
    "top_k": [{}, {"k": 2, "log": True}],
    "clusters": [{}, {"log": True}],
    "children": [{}, {"node": 1, "log": True}, {"target": 0, "order": "probability", "limit": 1}],
    "sample": [{}, {"num_samples": 3, "log": True}],
}


@pytest.fixture
def document(client):
    return client.get("/openapi.json").json()


def test_the_document_has_every_route(document):
    operations = {f"/v1/models/{{name}}/{operation.name}": {"post"} for operation in OPERATIONS}
    reads = ["/v1/models", "/v1/models/{name}", "/v1/models/{name}/labels", "/metrics"]
    reads += ["/healthz/live", "/healthz/ready"]
    expected = operations | {path: {"get"} for path in reads}
    expected |= {"/v1/files": {"get", "post"}, "/v1/files/{id}": {"get", "delete"}}
    expected |= {"/v1/files/{id}/content": {"get"}, "/v1/batches": {"get", "post"}}
    expected |= {"/v1/batches/{id}": {"get", "delete"}, "/v1/batches/{id}/cancel": {"post"}}
    expected |= OPEN_INFERENCE | {path: {"get"} for path in ALIASES}
    for change in ("reload", "unload", "rollback", "score", "topk"):
        expected[f"/v1/models/{{name}}/{change}"] = {"post"}
    expected["/v1/models/{name}/rollout"] = {"get", "put"}
    assert {path: set(methods) for path, methods in document["paths"].items()} == expected


def test_every_error_of_every_route_has_its_shape(document):
    schemas = document["components"]["schemas"]
    for path, operations in document["paths"].items():
        openai = path.startswith(("/v1/files", "/v1/batches"))
        error = {"$ref": f"#/components/schemas/{'OpenAIError' if openai else 'Error'}"}
        for operation in operations.values():
            for status, got in operation["responses"].items():
                assert "x-request-id" in got["headers"]
                assert got["description"]
                if status != "200":
                    assert got["content"] == {"application/json": {"schema": error}}
            assert "default" in operation["responses"]
    shape = schemas["Error"]
    assert shape["required"] == ["error", "code", "request_id"]
    assert shape["properties"]["code"]["enum"] == error_codes()
    shape = schemas["OpenAIError"]
    assert shape["required"] == ["error", "request_id"]
    inner = shape["properties"]["error"]
    assert inner["required"] == ["message", "type", "param", "code"]
    assert inner["properties"]["code"]["enum"] == error_codes()


@pytest.mark.parametrize(
    ("keys", "expected"), [({}, [{}, {"ApiKey": []}]), ({"api_keys": "secret"}, [{"ApiKey": []}])]
)
def test_the_document_says_which_key_a_route_needs(repository, keys, expected):
    with serving(repository, **keys) as client:
        headers = {"authorization": "Bearer secret"}
        document = client.get("/openapi.json", headers=headers).json()
    assert document["security"] == expected
    schemes = document["components"]["securitySchemes"]
    assert {one["scheme"] for one in schemes.values()} == {"bearer"}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if path.endswith(("/load", "/reload", "/unload", "/rollback")) or method == "put":
                assert operation["security"] == [{"AdminKey": []}], method
            elif "/health" in path or path == "/ping":
                assert operation["security"] == []
            else:
                assert "security" not in operation


def test_every_example_is_answered_by_a_served_bundle():
    answered = []
    with serving(SCHEMA_1) as client:  # it has a bundle of every family
        document = client.get("/openapi.json").json()
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                names = [one for one in operation.get("parameters", []) if one["name"] == "name"]
                url = path.replace("{name}", names[0]["example"] if names else "")
                for one in operation.get("parameters", []):
                    url = url.replace(f"{{{one['name']}}}", str(one.get("example")))
                content = operation.get("requestBody", {}).get("content", {})
                for content_type, described in content.items():
                    if "example" not in described or path == "/v1/batches":
                        continue
                    body = described["example"]
                    body = body if isinstance(body, str) else json.dumps(body)
                    headers = {"content-type": content_type}
                    response = client.request(method, url, content=body, headers=headers)
                    assert response.status_code == 200, response.text
                    assert '"failed":1' not in response.text
                    answered.append(path.rpartition("/")[2])
        example = document["paths"]["/v1/batches"]["post"]["requestBody"]["content"]
        assert example["application/json"]["example"]["endpoint"] == "/v1/models/adaptive/score"
        assert client.get("/openapi.json").json() == document
    names = {name for one in OPERATIONS for name in (one.name, *one.aliases)}
    names |= {"score", "infer"}
    assert set(answered) == names


def test_without_a_bundle_the_document_is_there(tmp_path):
    with serving(tmp_path) as client:
        document = client.get("/openapi.json").json()
    assert "/v1/models/{name}/probabilities" in document["paths"]


def test_every_reference_in_the_document_leads_somewhere(document):
    schemas = document["components"]["schemas"]
    used = set(re.findall(r"#/components/schemas/(\w+)", str(document)))
    assert used <= schemas.keys()
    assert not {"HTTPValidationError", "ValidationError"} & schemas.keys()


@pytest.mark.parametrize(
    "operation", [q for q in OPERATIONS if q.name in QUERIES], ids=lambda operation: operation.name
)
def test_responses_are_as_documented(ask, operation):
    for query in QUERIES[operation.name]:
        got = ask(operation.name, inputs=[ROW, ROW] if not query else [ROW], **query)
        told = msgspec.convert(got, operation.response)
        assert msgspec.to_builtins(told) == got


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_examples_are_valid_queries(operation):
    assert msgspec.convert(operation.example, operation.query)


@pytest.mark.parametrize("url", ["/", "/docs"])
def test_pages_load_nothing_from_elsewhere(client, url):
    page = client.get(url)
    assert page.headers["content-type"].startswith("text/html")
    assert not re.findall(r"(?:https?:)?//[\w.-]+\.\w+", page.text)
    for source in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        found = client.get(f"/{source.removeprefix('/')}")
        assert found.status_code == 200, source
        assert found.content


def test_docs_have_their_script_and_ask_no_validator(client):
    script = client.get("/docs/swagger-ui-bundle.js")
    assert script.headers["content-type"].startswith("text/javascript")
    assert len(script.content) > 500_000
    assert '"validatorUrl": null' in client.get("/docs").text


def test_metrics_count_requests_rows_and_blocks(client):
    before = numbers(client)
    client.post("/v1/models/words/top_k", json={"inputs": [ROW, ROW], "k": 2})
    client.post("/v1/models/words/top_k", json={"inputs": [ROW], "k": 0})
    client.post("/v1/models/nonesuch/top_k", json={})
    client.get("/nowhere")
    route = 'model="words",route="/v1/models/{name}/top_k"'
    after = numbers(client)

    def grew(name: str) -> float:
        return after[name] - before.get(name, 0)

    requests = 'hsoftmax_requests_total{code="%s",model="%s",route="%s",status="%s",version="%s"}'
    top_k = "/v1/models/{name}/top_k"
    assert grew(requests % ("ok", "words", top_k, 200, 2)) == 1
    assert grew(requests % ("invalid_query", "words", top_k, 422, 2)) == 1
    assert grew(requests % ("unknown_bundle", "", top_k, 404, "")) == 1
    assert grew(requests % ("not_found", "", "unmatched", 404, "")) == 1
    assert grew(f"hsoftmax_rows_total{{{route}}}") == 2
    assert grew(f"hsoftmax_compute_seconds_count{{{route}}}") == 1
    assert grew(f"hsoftmax_queue_seconds_count{{{route}}}") == 1
    assert grew('hsoftmax_blocks_opened_total{model="words"}') >= 2
    assert after["hsoftmax_ready"] == 1


def test_metrics_name_every_bundle(client):
    digest = client.get("/v1/models/words").json()["digest"]
    expected = (
        f'hsoftmax_bundle_info{{device="cpu",digest="{digest}",'
        'family="HierarchicalSoftmax",model="words",version="2"}'
    )
    assert numbers(client)[expected] == 1


def numbers(client) -> dict[str, float]:
    page = client.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    lines = (line for line in page.text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}
