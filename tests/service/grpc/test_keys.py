"""Tests of named keys over gRPC: the same scopes and models as over HTTP."""

import io
import json

import grpc
import pytest

from hsoftmax.service.grpc.messages import SERVICE, ModelStreamInferResponse
from hsoftmax.service.logging import json_log
from hsoftmax.service.middleware.request_log import RequestRecorder

from .conftest import expect_status, raw_request, serving_grpc, until

KEYS = """
{"name": "reader", "key": "r", "models": ["words"]}
{"name": "batcher", "key": "b", "scopes": ["batch"]}
{"name": "deployer", "key": "d", "scopes": ["admin"], "models": ["words"]}
"""


@pytest.fixture(scope="module")
def closed(repository, tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text(KEYS)
    with serving_grpc(repository, api_keys_file=path) as service:
        yield service


def bearer(key: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {key}")]


@pytest.mark.parametrize(
    ("key", "method", "fields", "sentence"),
    [
        ("b", "ServerMetadata", {}, "key 'batcher': expected the scope read, got batch"),
        ("d", "ModelMetadata", {"name": "words"}, "key 'deployer': expected the scope read"),
        (
            "r",
            "ModelMetadata",
            {"name": "plain"},
            "key 'reader': expected one for the model 'plain'",
        ),
        (
            "r",
            "RepositoryModelUnload",
            {"model_name": "words"},
            "'reader': expected the scope admin",
        ),
        (
            "d",
            "RepositoryModelUnload",
            {"model_name": "plain"},
            "expected one for the model 'plain'",
        ),
    ],
)
def test_a_refusal_names_what_the_key_lacks(closed, key, method, fields, sentence):
    with expect_status(grpc.StatusCode.PERMISSION_DENIED, sentence):
        closed.call(method, metadata=bearer(key), **fields)


def test_a_key_opens_its_scopes_and_models(closed, hidden):
    assert closed.call("ModelMetadata", metadata=bearer("r"), name="words").name == "words"
    loaded = closed.call("RepositoryModelLoad", metadata=bearer("d"), model_name="words")
    assert loaded.isLoaded
    index = closed.call("RepositoryIndex", metadata=bearer("r"))
    assert {one.name for one in index.models} == {"words"}
    stats = closed.call("ModelStatistics", metadata=bearer("r"))
    assert {one.name for one in stats.model_stats} == {"words"}


def test_each_request_of_a_stream_needs_the_model(closed, hidden):
    requests = [raw_request(model, "log_probs", hidden=hidden) for model in ("plain", "words")]
    stream = closed.stream(f"/{SERVICE}/ModelStreamInfer", ModelStreamInferResponse)
    answers = list(stream(iter(requests), metadata=bearer("r")))
    assert "expected one for the model 'plain'" in answers[0].error_message
    assert not answers[1].error_message


def test_each_admin_call_has_an_audit_line(closed, monkeypatch):
    stream = io.BytesIO()
    recorder = RequestRecorder(closed.context.metrics, json_log("info", stream))
    monkeypatch.setattr(closed.server._handler, "_recorder", recorder)
    closed.call("RepositoryModelLoad", metadata=bearer("d"), model_name="words")
    with expect_status(grpc.StatusCode.PERMISSION_DENIED):
        closed.call("RepositoryModelUnload", metadata=bearer("r"), model_name="words")
    closed.call("RepositoryIndex", metadata=bearer("r"))
    until(lambda: stream.getvalue().count(b'"request"') == 3)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    audit = [one for one in lines if one["event"] == "audit"]
    assert [(one["key"], one["model"], one["outcome"]) for one in audit] == [
        ("deployer", "words", "ok"),
        ("reader", "", "forbidden"),  # its message was not read
    ]
    assert audit[0]["route"] == f"/{SERVICE}/RepositoryModelLoad"


def test_calls_and_requests_of_a_stream_are_limited(repository, tmp_path, hidden):
    path = tmp_path / "keys"
    path.write_text('{"name": "slow", "key": "s", "requests_per_second": 0.01}')
    with serving_grpc(repository, api_keys_file=path) as service:
        requests = [raw_request("words", "log_probs", hidden=hidden) for _ in range(2)]
        stream = service.stream(f"/{SERVICE}/ModelStreamInfer", ModelStreamInferResponse)
        answers = list(stream(iter(requests), metadata=bearer("s")))
        assert not answers[0].error_message
        assert "at most 0.01 requests a second of the key 'slow'" in answers[1].error_message
        with expect_status(grpc.StatusCode.RESOURCE_EXHAUSTED, "rate limit: expected") as refused:
            service.call("ModelMetadata", metadata=bearer("s"), name="words")
        assert service.call("ServerLive").live
    assert refused.trailers["x-hsoftmax-code"] == "rate_limited"
    assert refused.trailers["ratelimit"].startswith('"key-requests";r=0;t=')
    assert 90 <= int(refused.trailers["retry-after"]) <= 100
