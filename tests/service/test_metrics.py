"""Counters have their series before the first event, because `rate()` needs a sample before it."""

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from hsoftmax.service.engine import Lane
from hsoftmax.service.metrics import Metrics

from .conftest import HIDDEN, serving


def samples(client: TestClient) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    page = client.get("/metrics").text
    found = [
        ((sample.name, frozenset(sample.labels.items())), sample.value)
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    ]
    assert len(dict(found)) == len(found)
    return dict(found)


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return f"hsoftmax_{name}_total", frozenset(labels.items())


BY_LANE = [
    key(name, lane=lane)
    for name in ("rejected", "expired", "cancelled", "batched_requests")
    for lane in Lane
]
BY_MODEL = [
    *(
        key(name, model=model, outcome=outcome)
        for name in ("streamed_rows", "job_rows")
        for model in ("words", "plain")
        for outcome in ("scored", "failed")
    ),
    *(key("blocks_opened", model=model) for model in ("words", "plain")),
]
ROUTES = [f"/v1/models/{{name}}/{name}" for name in ("probabilities", "top_k", "sample", "score")]
BY_ROUTE = [
    one
    for route in ROUTES
    for model in ("words", "plain")
    for one in (
        key("rows", route=route, model=model),
        *(
            key("requests", route=route, model=model, version=version, status="200", code="ok")
            for version in {"words": "12", "plain": "7"}[model]
        ),
    )
]


def test_counters_with_known_labels_start_at_0(repository):
    with serving(repository) as client:
        found = samples(client)
        expected = BY_LANE + BY_MODEL + BY_ROUTE
        assert {one: found.get(one) for one in expected} == dict.fromkeys(expected, 0.0)


def test_a_first_event_is_an_increase_and_stays(repository):
    with serving(repository) as client:
        samples(client)
        client.post("/v1/models/words/top_k", json={"inputs": [[0.5] * HIDDEN]})
        first, second = samples(client), samples(client)
        assert first[key("blocks_opened", model="words")] >= 1
        assert first[key("blocks_opened", model="plain")] == 0
        for one in BY_LANE + BY_MODEL:
            assert first[one] == second[one]


@pytest.mark.parametrize("native", ["on", "off"])
def test_each_task_names_its_runtime_from_the_first_scrape(repository, native):
    with serving(repository, native=native) as client:
        found = {
            tuple(
                dict(labels)[name] for name in ("model", "version", "task", "runtime", "device")
            ): value
            for (name, labels), value in samples(client).items()
            if name == "hsoftmax_task_info"
        }
        about = client.get("/v1/models/plain").json()
    assert about["native"] == (["sample", "target_log_prob", "top_k"] if native == "on" else [])
    assert {one: n for one, n in found.items() if one[0] == "plain"} == {
        ("plain", "7", task, "native" if task in about["native"] else "onnxruntime", "cpu"): 1.0
        for task in about["tasks"]
    }
    assert {one[:2] for one in found} == {("plain", "7"), ("words", "1"), ("words", "2")}


@pytest.mark.parametrize("outcome", ["rejected", "expired", "cancelled"])
def test_an_event_is_added_to_the_series_that_exists(outcome):
    metrics = Metrics()
    metrics.start_lanes(Lane)
    before = metrics.page().decode()
    metrics.unanswered(Lane.FULL, outcome)
    after = metrics.page().decode()
    assert f'hsoftmax_{outcome}_total{{lane="full"}} 0.0\n' in before
    assert f'hsoftmax_{outcome}_total{{lane="full"}} 1.0\n' in after
    assert before.count(f"hsoftmax_{outcome}_total{{") == after.count(f"hsoftmax_{outcome}_total{{")
