"""POST /v1/models/{name}/clusters against the NumPy reference."""

import numpy as np

from hsoftmax.models.hierarchical_softmax import cluster_log_probs
from tests.service.conftest import SERVED, TOLERANCE


def test_it_gives_the_marginals_of_level_0(ask, hidden):
    wanted = cluster_log_probs(SERVED["words", 2], hidden)
    linear = ask("clusters", inputs=hidden.tolist())["probabilities"]
    np.testing.assert_allclose(linear, np.exp(wanted), rtol=TOLERANCE)
    logs = ask("clusters", inputs=hidden.tolist(), log=True)["log_probabilities"]
    np.testing.assert_allclose(logs, wanted, rtol=0, atol=TOLERANCE)


def test_targets_and_their_clusters_come_in_one_answer(ask, hidden):
    asked = {"inputs": hidden.tolist(), "targets": [0] * len(hidden), "clusters": True}
    answer, alone = ask("probabilities", **asked), ask("clusters", inputs=hidden.tolist())
    assert len(answer["probabilities"]) == len(hidden)
    np.testing.assert_allclose(answer["cluster_probabilities"], alone["probabilities"], rtol=1e-6)
    logs = ask("probabilities", **asked, log=True)["cluster_log_probabilities"]
    np.testing.assert_allclose(np.exp(logs), alone["probabilities"], rtol=1e-5)


def test_clusters_beside_the_full_distribution_are_refused(client, hidden):
    body = {"inputs": hidden.tolist(), "clusters": True}
    answer = client.post("/v1/models/words/probabilities", json=body)
    assert answer.status_code == 422
    assert answer.json()["error"] == "clusters: expected targets beside it, got none"
