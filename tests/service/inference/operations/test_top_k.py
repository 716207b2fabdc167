"""POST /v1/models/{name}/top_k against the NumPy reference."""

import io
import json
import time

import numpy as np
import pytest
from starlette.testclient import TestClient

from hsoftmax.models.hierarchical_softmax import top_k
from tests.service.conftest import CLUSTERS, LABELS, SERVED, TARGETS, TOLERANCE, expect_error

NEWEST = SERVED["words", 2]
NAMES = ("top_k", "topk")


@pytest.mark.parametrize("k", [1, 4, TARGETS])
def test_it_gives_the_k_likeliest_in_order(ask, hidden, k):
    answer = ask("top_k", inputs=hidden.tolist(), k=k)
    log_prob, target = top_k(NEWEST, hidden, k)
    assert len(answer["results"]) == len(hidden)
    for i, result in enumerate(answer["results"]):
        assert result["targets"] == target[i].tolist()
        assert result["labels"] == [LABELS[t] for t in target[i]]
        np.testing.assert_allclose(result["probabilities"], np.exp(log_prob[i]), rtol=TOLERANCE)
        assert result["exact"] is True
        assert 1 <= result["blocks"] <= CLUSTERS


def test_k_is_ten_by_default(ask, hidden):
    answer = ask("top_k", inputs=hidden[:1].tolist())
    assert len(answer["results"][0]["targets"]) == 10


def test_log_gives_log_probabilities(ask, hidden):
    (result,) = ask("top_k", inputs=hidden[:1].tolist(), k=2, log=True)["results"]
    assert "probabilities" not in result
    wanted = top_k(NEWEST, hidden[:1], 2)[0][0]
    np.testing.assert_allclose(result["log_probabilities"], wanted, rtol=0, atol=TOLERANCE)


def test_a_bundle_without_labels_gives_none(ask, hidden):
    (result,) = ask("top_k", name="plain", inputs=hidden[:1].tolist(), k=2)["results"]
    assert result.keys() == {"targets", "probabilities", "exact", "blocks"}


def test_a_search_cut_short_gives_no_more_than_it_found(ask, hidden):
    (result,) = ask("top_k", inputs=hidden[:1].tolist(), k=TARGETS, max_blocks=1)["results"]
    assert len(result["targets"]) == len(result["probabilities"]) <= TARGETS
    assert all(p > 0 for p in result["probabilities"])


def test_a_row_alone_is_as_in_a_batch(ask, hidden):
    batch = ask("top_k", inputs=hidden.tolist(), k=5)["results"]
    for row, result in zip(hidden.tolist(), batch, strict=True):
        (alone,) = ask("top_k", inputs=[row], k=5)["results"]
        assert alone["targets"] == result["targets"]


def test_topk_is_an_alias_with_the_same_label_in_metrics_and_log(app, hidden):
    log = io.BytesIO()
    with TestClient(app(log)) as client:
        query = {"inputs": hidden.tolist(), "k": 2}
        answers = [client.post(f"/v1/models/words/{name}", json=query) for name in NAMES]
        assert answers[0].json() == answers[1].json()
        for name in NAMES:
            expect_error(client.get(f"/v1/models/words/{name}"), 405, "method_not_allowed")
        metrics = client.get("/metrics").text
        assert logged_routes(log, 4) == ["/v1/models/{name}/top_k"] * 4
    assert "topk" not in metrics
    assert 'hsoftmax_rows_total{model="words",route="/v1/models/{name}/top_k"} 6.0' in metrics


def logged_routes(log: io.BytesIO, requests: int) -> list[str]:
    """The routes of the requests in the log, once it has so many; it is written a little later."""
    routes: list[str] = []
    for _ in range(250):
        events = [json.loads(line) for line in log.getvalue().splitlines()]
        routes = [event["route"] for event in events if event["event"] == "request"]
        if len(routes) >= requests:
            break
        time.sleep(0.02)
    return routes


def test_the_alias_is_deprecated_in_the_document(client):
    paths = client.get("/openapi.json").json()["paths"]
    top_k, alias = (paths[f"/v1/models/{{name}}/{name}"]["post"] for name in NAMES)
    assert (alias["operationId"], alias["deprecated"]) == ("topk", True)
    assert alias["requestBody"] == top_k["requestBody"]
    assert alias["responses"] == top_k["responses"]
    assert top_k["operationId"] == "top_k"
    assert "deprecated" not in top_k
