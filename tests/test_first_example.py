"""The first example over HTTP: the perplexity of its held-out rows is that of its training."""

import math

import numpy as np
import pytest

from tests.first_example import PERPLEXITY, export_first_example, read_heldout
from tests.service.conftest import serving

ROWS = 250


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return export_first_example(tmp_path_factory.mktemp("repository"))


@pytest.mark.parametrize("native", ["on", "off"])
def test_the_perplexity_is_the_trainers_with_native_kernels_and_with_graphs(made, native):
    hidden, target = read_heldout()
    total = 0.0
    with serving(made.path.parent.parent, native=native) as http:
        for rows in np.split(np.arange(len(target)), len(target) // ROWS):
            body = {"inputs": hidden[rows].tolist(), "targets": target[rows].tolist(), "log": True}
            answer = http.post("/v1/models/state_of_the_union/probabilities", json=body)
            total += math.fsum(answer.raise_for_status().json()["log_probabilities"])
    perplexity = math.exp(-total / len(target))
    assert perplexity == pytest.approx(75.3877, abs=1e-4)
    assert perplexity == pytest.approx(PERPLEXITY, abs=1e-4)
