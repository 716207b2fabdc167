"""POST /v1/models/{name}/clusters against the NumPy reference."""

import numpy as np

from models.hierarchical_softmax import cluster_log_probs

from .conftest import SERVED, TOLERANCE


def test_it_gives_the_marginals_of_level_0(ask, hidden):
    wanted = cluster_log_probs(SERVED["words", 2], hidden)
    linear = ask("clusters", inputs=hidden.tolist())["probabilities"]
    np.testing.assert_allclose(linear, np.exp(wanted), rtol=TOLERANCE)
    logs = ask("clusters", inputs=hidden.tolist(), log=True)["log_probabilities"]
    np.testing.assert_allclose(logs, wanted, rtol=0, atol=TOLERANCE)
