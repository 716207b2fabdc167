"""POST /v1/models/{name}/sample."""

import numpy as np
import pytest

from hsoftmax.models.hierarchical_softmax import log_probs
from tests.service.conftest import LABELS, SERVED, TOLERANCE, expect_error

NEWEST = SERVED["words", 2]


def test_drawn_targets_come_with_their_probabilities(ask, hidden):
    answer = ask("sample", inputs=hidden.tolist(), num_samples=5, seed=3)
    wanted = np.exp(log_probs(NEWEST, hidden))
    for row, result in zip(wanted, answer["results"], strict=True):
        assert len(result["targets"]) == 5
        assert result["labels"] == [LABELS[t] for t in result["targets"]]
        np.testing.assert_allclose(result["probabilities"], row[result["targets"]], rtol=TOLERANCE)


def test_targets_are_drawn_as_often_as_they_are_likely(ask, hidden):
    samples = 20_000
    (result,) = ask("sample", inputs=hidden[:1].tolist(), num_samples=samples, seed=1)["results"]
    counts = np.bincount(result["targets"], minlength=len(LABELS))
    likely = np.exp(log_probs(NEWEST, hidden[:1])[0])
    five_sigma = 5 * np.sqrt(samples * likely * (1 - likely)) + 1
    assert (np.abs(counts - samples * likely) < five_sigma).all()


def test_a_seed_repeats_the_draw(ask, hidden):
    query = {"inputs": hidden.tolist(), "num_samples": 20}
    first = ask("sample", **query)
    assert ask("sample", **query, seed=first["seed"]) == first
    assert ask("sample", **query)["results"] != first["results"]


def test_a_row_draws_the_same_with_other_rows_behind_it(ask, hidden):
    batch = ask("sample", inputs=hidden.tolist(), num_samples=4, seed=8)["results"]
    alone = ask("sample", inputs=hidden[:1].tolist(), num_samples=4, seed=8)["results"]
    assert alone[0]["targets"] == batch[0]["targets"]


def test_parts_with_the_numbers_of_their_first_rows_draw_as_the_whole(ask, hidden):
    query = {"num_samples": 5, "seed": 8}
    whole = ask("sample", inputs=hidden.tolist(), **query)["results"]
    parts = [
        result["targets"]
        for first in range(0, len(hidden), 3)
        for result in ask(
            "sample", inputs=hidden[first : first + 3].tolist(), first_row=first, **query
        )["results"]
    ]
    assert parts == [result["targets"] for result in whole]
    assert parts[1:] != [result["targets"] for result in whole][:-1]


@pytest.mark.parametrize("first_row", [-1, 2**53])
def test_a_first_row_out_of_range_is_refused(client, hidden, first_row):
    body = {"inputs": hidden[:1].tolist(), "first_row": first_row}
    response = client.post("/v1/models/words/sample", json=body)
    expect_error(response, 422, "invalid_query", f"first_row: expected 0 to {2**53 - 1}, got")


def test_one_target_is_drawn_by_default(ask, hidden):
    (result,) = ask("sample", inputs=hidden[:1].tolist())["results"]
    assert len(result["targets"]) == 1
