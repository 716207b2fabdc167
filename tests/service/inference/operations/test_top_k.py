"""POST /v1/models/{name}/topk against the NumPy reference."""

import numpy as np
import pytest

from hsoftmax.models.hierarchical_softmax import top_k
from tests.service.conftest import CLUSTERS, LABELS, SERVED, TARGETS, TOLERANCE

NEWEST = SERVED["words", 2]


@pytest.mark.parametrize("k", [1, 4, TARGETS])
def test_it_gives_the_k_likeliest_in_order(ask, hidden, k):
    answer = ask("topk", inputs=hidden.tolist(), k=k)
    log_prob, target = top_k(NEWEST, hidden, k)
    assert len(answer["results"]) == len(hidden)
    for i, result in enumerate(answer["results"]):
        assert result["targets"] == target[i].tolist()
        assert result["labels"] == [LABELS[t] for t in target[i]]
        np.testing.assert_allclose(result["probabilities"], np.exp(log_prob[i]), rtol=TOLERANCE)
        assert result["exact"] is True
        assert 1 <= result["blocks"] <= CLUSTERS


def test_k_is_ten_unless_said(ask, hidden):
    answer = ask("topk", inputs=hidden[:1].tolist())
    assert len(answer["results"][0]["targets"]) == 10


def test_log_gives_log_probabilities(ask, hidden):
    (result,) = ask("topk", inputs=hidden[:1].tolist(), k=2, log=True)["results"]
    assert "probabilities" not in result
    wanted = top_k(NEWEST, hidden[:1], 2)[0][0]
    np.testing.assert_allclose(result["log_probabilities"], wanted, rtol=0, atol=TOLERANCE)


def test_a_bundle_without_labels_gives_none(ask, hidden):
    (result,) = ask("topk", name="plain", inputs=hidden[:1].tolist(), k=2)["results"]
    assert result.keys() == {"targets", "probabilities", "exact", "blocks"}


def test_a_search_cut_short_gives_no_more_than_it_found(ask, hidden):
    (result,) = ask("topk", inputs=hidden[:1].tolist(), k=TARGETS, max_blocks=1)["results"]
    assert len(result["targets"]) == len(result["probabilities"]) <= TARGETS
    assert all(p > 0 for p in result["probabilities"])


def test_a_row_alone_is_as_in_a_batch(ask, hidden):
    batch = ask("topk", inputs=hidden.tolist(), k=5)["results"]
    for row, result in zip(hidden.tolist(), batch, strict=True):
        (alone,) = ask("topk", inputs=[row], k=5)["results"]
        assert alone["targets"] == result["targets"]
