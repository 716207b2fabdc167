"""POST /v1/models/{name}/probabilities against the NumPy reference."""

import numpy as np
import pytest

from hsoftmax.models.hierarchical_softmax import log_probs, target_log_prob
from tests.service.conftest import LABELS, SERVED, TARGETS, TOLERANCE

NEWEST = SERVED["words", 2]


@pytest.fixture
def full(hidden):
    return log_probs(NEWEST, hidden)


def test_one_target_for_each_row_gives_one_number_for_each_row(ask, hidden, full):
    answer = ask("probabilities", inputs=hidden.tolist(), targets=[3, 0, 10])
    assert answer.keys() == {"model", "version", "probabilities"}
    assert (answer["model"], answer["version"]) == ("words", "2")
    wanted = np.exp(full[[0, 1, 2], [3, 0, 10]])
    np.testing.assert_allclose(answer["probabilities"], wanted, rtol=TOLERANCE)


def test_ragged_lists_give_ragged_lists(ask, hidden, full):
    targets = [[3, 10, 3], [], [5]]
    answer = ask("probabilities", inputs=hidden.tolist(), targets=targets, log=True)
    assert answer.keys() == {"model", "version", "log_probabilities"}
    for i, asked in enumerate(targets):
        np.testing.assert_allclose(
            answer["log_probabilities"][i], full[i, asked], rtol=0, atol=TOLERANCE
        )


def test_rows_without_targets_give_empty_lists(ask, hidden):
    answer = ask("probabilities", inputs=hidden.tolist(), targets=[[], [], []])
    assert answer["probabilities"] == [[], [], []]


def test_every_target_of_every_row_agrees_with_the_reference(ask, hidden, full):
    everything = list(range(TARGETS))
    asked = ask("probabilities", inputs=hidden.tolist(), targets=[everything] * 3, log=True)
    np.testing.assert_allclose(asked["log_probabilities"], full, rtol=0, atol=TOLERANCE)


def test_no_targets_gives_the_full_distribution(ask, hidden, full):
    answer = ask("probabilities", inputs=hidden.tolist())
    np.testing.assert_allclose(answer["probabilities"], np.exp(full), rtol=TOLERANCE)
    np.testing.assert_allclose(np.sum(answer["probabilities"], axis=1), 1, rtol=TOLERANCE)
    logs = ask("probabilities", inputs=hidden.tolist(), log=True)["log_probabilities"]
    np.testing.assert_allclose(logs, full, rtol=0, atol=TOLERANCE)


def test_a_label_is_the_same_as_its_target(ask, hidden):
    by_label = ask(
        "probabilities", inputs=hidden.tolist(), targets=[[LABELS[10], 2], [], ["word0"]]
    )
    by_number = ask("probabilities", inputs=hidden.tolist(), targets=[[10, 2], [], [0]])
    assert by_label == by_number


def test_a_row_alone_is_as_in_a_batch(ask, hidden):
    batch = ask("probabilities", inputs=hidden.tolist())["probabilities"]
    for i, row in enumerate(hidden.tolist()):
        alone = ask("probabilities", inputs=[row])["probabilities"]
        np.testing.assert_allclose(alone[0], batch[i], rtol=TOLERANCE)


@pytest.mark.parametrize("version", ["1", 1])
def test_a_version_can_be_pinned(ask, hidden, version):
    answer = ask("probabilities", inputs=hidden.tolist(), targets=[1, 2, 3], version=version)
    assert answer["version"] == "1"
    rows, targets = np.arange(3), np.array([1, 2, 3])
    wanted = np.exp(target_log_prob(SERVED["words", 1], hidden, rows, targets))
    np.testing.assert_allclose(answer["probabilities"], wanted, rtol=TOLERANCE)


def test_extreme_inputs_give_finite_log_probabilities(ask, hidden):
    extreme = hidden * 1e4
    answer = ask("probabilities", inputs=extreme.tolist(), log=True)["log_probabilities"]
    np.testing.assert_allclose(answer, log_probs(NEWEST, extreme), rtol=1e-4, atol=TOLERANCE)


def test_a_probability_below_float32_is_still_a_number(ask, hidden):
    answer = ask("probabilities", inputs=(hidden * 30).tolist())["probabilities"]
    wanted = np.exp(log_probs(NEWEST, (hidden * 30)))
    assert 0 < wanted.min() < np.finfo(np.float32).tiny
    np.testing.assert_allclose(answer, wanted, rtol=1e-3)
