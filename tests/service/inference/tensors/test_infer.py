"""Requests of tensors: they run the operations of /v1 and give the same numbers."""

import re

import numpy as np
import pytest

from hsoftmax.service.engine import Priority
from hsoftmax.service.errors import InvalidQuery, ServiceError, TargetOutOfRange, UnknownLabel
from hsoftmax.service.http.request_options import RequestOptions
from hsoftmax.service.inference.tensors.declaration import MIN_LOG_PROB
from hsoftmax.service.inference.tensors.request import RequestedOutput, request_options
from tests.service.conftest import HIDDEN, LABELS, TARGETS


def arrays(result) -> dict:
    return {one.name: one.data for one in result.outputs}


@pytest.fixture
def v1(client):
    """Function that asks /v1 for the fields of an operation."""

    def v1(operation: str, name="words", **query):
        response = client.post(f"/v1/models/{name}/{operation}", json=query)
        assert response.status_code == 200, response.text
        return response.json()

    return v1


def test_targets_of_each_row_get_log_prob_and_prob(ask, v1, hidden):
    targets = [[1, 2], [3, 4], [5, 6]]
    got = ask({"hidden": hidden, "target": np.array(targets)})
    assert (got.model, got.version, got.id) == ("words", "2", "7")
    assert [one.name for one in got.outputs] == ["target_log_prob", "target_prob"]
    assert {one.shape for one in got.outputs} == {(3, 2)}
    query = {"inputs": hidden.tolist(), "targets": targets}
    linear = v1("probabilities", **query)["probabilities"]
    log = v1("probabilities", log=True, **query)["log_probabilities"]
    np.testing.assert_array_equal(arrays(got)["target_log_prob"], np.float32(log))
    np.testing.assert_array_equal(np.float32(arrays(got)["target_prob"]), np.float32(linear))


def test_one_target_for_each_row_may_be_flat(ask, v1, hidden):
    got = ask({"hidden": hidden, "target": np.array([1, 2, 3], np.int32)}, "target_log_prob")
    log = v1("probabilities", inputs=hidden.tolist(), targets=[1, 2, 3], log=True)
    np.testing.assert_array_equal(
        arrays(got)["target_log_prob"], np.float32(log["log_probabilities"])
    )


def test_pairs_have_any_rows_in_any_order(ask, v1, hidden):
    row, target = np.array([2, 0, 2, 2]), np.array([5, 1, 6, 5])
    got = arrays(ask({"hidden": hidden, "target": target, "row": row}))["target_log_prob"]
    log = v1("probabilities", inputs=hidden.tolist(), targets=[[1], [], [5, 6]], log=True)
    first, _, third = log["log_probabilities"]
    np.testing.assert_array_equal(got, np.float32([third[0], *first, third[1], third[0]]))


def test_labels_are_targets(ask, hidden):
    by_label = arrays(ask({"hidden": hidden, "target": ["word1", "étoile", "word2"]}))
    by_number = arrays(ask({"hidden": hidden, "target": np.array([1, TARGETS - 1, 2])}))
    np.testing.assert_array_equal(by_label["target_prob"], by_number["target_prob"])


def test_without_targets_it_is_top_k(ask, v1, hidden):
    got = ask({"hidden": hidden}, k=4)
    names = ["top_k_target", "top_k_log_prob", "top_k_prob", "top_k_label", "exact", "blocks"]
    assert [one.name for one in got.outputs] == names
    assert [one.shape for one in got.outputs] == [(3, 4)] * 4 + [(3,)] * 2
    results = v1("top_k", inputs=hidden.tolist(), k=4)["results"]
    read = arrays(got)
    assert read["top_k_target"].tolist() == [one["targets"] for one in results]
    labels = [label.encode() for one in results for label in one["labels"]]
    assert read["top_k_label"] == labels
    assert read["blocks"].tolist() == [one["blocks"] for one in results]
    assert read["exact"].tolist() == [one["exact"] for one in results]
    linear = np.float32([one["probabilities"] for one in results])
    np.testing.assert_array_equal(np.float32(read["top_k_prob"]), linear)


def test_a_search_that_finds_fewer_is_filled_up(ask, v1, hidden):
    outputs = ("top_k_target", "top_k_log_prob", "top_k_prob", "top_k_label", "found", "truncated")
    got = arrays(ask({"hidden": hidden}, *outputs, k=5, threshold=0.1))
    results = v1("top_k", inputs=hidden.tolist(), k=5, threshold=0.1)["results"]
    for i, one in enumerate(results):
        count = len(one["targets"])
        assert got["found"][i] == count < 5
        assert got["top_k_target"][i].tolist() == one["targets"] + [-1] * (5 - count)
        assert got["top_k_log_prob"][i, count:].tolist() == [MIN_LOG_PROB] * (5 - count)
        assert got["top_k_prob"][i, count:].tolist() == [0] * (5 - count)
        assert got["top_k_label"][i * 5 + count : i * 5 + 5] == [b""] * (5 - count)
        assert got["truncated"][i] == one["truncated"]
    assert arrays(ask({"hidden": hidden}, "truncated"))["truncated"].tolist() == [False] * 3
    cut = arrays(ask({"hidden": hidden}, "truncated", k=1, threshold=0.1))["truncated"]
    assert cut.any()


def test_wide_outputs_come_on_request(ask, v1, hidden):
    got = ask({"hidden": hidden}, "log_probs", "probs", "cluster_log_probs", "cluster_probs")
    full = np.float32(v1("probabilities", inputs=hidden.tolist(), log=True)["log_probabilities"])
    read = arrays(got)
    np.testing.assert_array_equal(read["log_probs"], full)
    np.testing.assert_allclose(read["probs"].sum(axis=1), 1, rtol=1e-6)
    clusters = v1("clusters", inputs=hidden.tolist())["probabilities"]
    np.testing.assert_allclose(read["cluster_probs"], clusters, rtol=1e-6)


def test_outputs_of_several_operations_have_the_requested_order(ask, hidden):
    wanted = ("probs", "top_k_target", "target_prob", "exact", "sample")
    got = ask({"hidden": hidden, "target": np.array([[0], [1], [2]])}, *wanted, seed=5, k=2)
    assert tuple(one.name for one in got.outputs) == wanted
    read = arrays(got)
    chosen = np.take_along_axis(read["probs"], np.array([[0], [1], [2]]), axis=1)
    np.testing.assert_allclose(read["target_prob"], chosen, rtol=1e-5)
    np.testing.assert_array_equal(read["top_k_target"][:, 0], read["probs"].argmax(axis=1))
    assert got.parameters == {"seed": 5}


def test_a_seed_repeats_a_sample(ask, v1, hidden):
    got = ask({"hidden": hidden}, "sample", "sample_label", num_samples=4)
    again = ask({"hidden": hidden}, "sample", num_samples=4, **got.parameters)
    assert arrays(got)["sample"].tolist() == arrays(again)["sample"].tolist()
    results = v1("sample", inputs=hidden.tolist(), num_samples=4, **got.parameters)["results"]
    assert arrays(got)["sample"].tolist() == [one["targets"] for one in results]
    targets = arrays(got)["sample"].ravel()
    assert arrays(got)["sample_label"] == [LABELS[target].encode() for target in targets]


@pytest.mark.parametrize("output", ["probs", "log_probs"])
def test_classification_gives_the_likeliest_with_labels(ask, hidden, output):
    (classes,) = ask({"hidden": hidden}, RequestedOutput(output, 2)).outputs
    assert (classes.datatype, classes.shape) == ("BYTES", (3, 2))
    read = arrays(ask({"hidden": hidden}, f"top_k_{output[:-1]}", "top_k_target", k=2))
    for text, value, target in zip(
        classes.data, read[f"top_k_{output[:-1]}"].ravel(), read["top_k_target"].ravel(),
        strict=True,
    ):  # fmt: skip
        number, index, label = text.decode().split(":")
        assert float(number) == pytest.approx(value, rel=1e-8)
        assert (int(index), label) == (target, LABELS[target])
    (all_of_them,) = ask({"hidden": hidden}, RequestedOutput("probs", 99), model="plain").outputs
    assert all_of_them.shape == (3, TARGETS)
    assert re.fullmatch(rb"[\d.e-]+:\d+", all_of_them.data[0])


def test_every_float_is_a_hidden_state(ask, hidden):
    exact = np.round(hidden * 4) / 4  # of few bits
    expected = arrays(ask({"hidden": exact}, "log_probs"))["log_probs"]
    for dtype in (np.float16, np.float64):
        got = arrays(ask({"hidden": exact.astype(dtype)}, "log_probs"))["log_probs"]
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("model", ["words", "plain"])
def test_no_targets_are_no_work(ask, hidden, model):
    got = ask({"hidden": hidden, "target": np.empty((3, 0), np.int64)}, model=model)
    assert [one.shape for one in got.outputs] == [(3, 0), (3, 0)]


ROW = np.zeros((2, HIDDEN), np.float32)
ONE = np.array([1, 2])


@pytest.mark.parametrize(
    ("inputs", "outputs", "parameters", "error", "sentence"),
    [
        ({"hiden": ROW}, (), {}, InvalidQuery,
         "inputs: expected hidden, target, row, got 'hiden': did you mean hidden?"),
        ({}, (), {}, InvalidQuery, "inputs: expected the rows once, as hidden, got none"),
        ({"hidden": ROW[:, 1:]}, (), {}, InvalidQuery, "inputs: expected rows of 8 numbers"),
        ({"hidden": ONE}, (), {}, InvalidQuery, "hidden: expected BF16, FP16, FP32, FP64, got INT"),
        ({"hidden": ROW * np.nan}, (), {}, InvalidQuery, "inputs row 0, position 0: expected"),
        ({"hidden": ROW}, ("top_k_targets",), {}, InvalidQuery, "did you mean top_k_target?"),
        ({"hidden": ROW}, ("probs", "probs"), {}, InvalidQuery, "expected 'probs' once"),
        ({"hidden": ROW}, ("target_prob",), {}, InvalidQuery,
         "inputs: expected target for target_prob, got none"),
        ({"hidden": ROW, "row": ONE}, (), {}, InvalidQuery, "row: expected target beside it"),
        ({"hidden": ROW}, (RequestedOutput("exact", 1),), {}, InvalidQuery,
         "classification: expected it of probs or log_probs, got 'exact'"),
        ({"hidden": ROW}, (), {"kk": 1}, InvalidQuery,
         "parameters: expected k, max_blocks, threshold, num_samples, seed, priority, timeout"),
        ({"hidden": ROW}, (), {"k": "5"}, InvalidQuery, "parameters.k: expected an integer"),
        ({"hidden": ROW}, (), {"k": 99}, InvalidQuery, "k: expected 1 to 11, got 99"),
        ({"hidden": ROW}, (), {"timeout": -1}, InvalidQuery, "parameters.timeout: expected an int"),
        ({"hidden": ROW, "target": np.array([1, 11])}, (), {}, TargetOutOfRange,
         "targets row 1: expected 0 to 10, got 11"),
        ({"hidden": ROW, "target": np.array([2**64 - 1, 1], np.uint64)}, (), {}, TargetOutOfRange,
         "targets row 0: expected 0 to 10"),
        ({"hidden": ROW, "target": np.array([[1, 2, 3]])}, (), {}, InvalidQuery,
         "target: expected shape [2] or [2, targets], got [1, 3]"),
        ({"hidden": ROW, "target": ONE, "row": np.array([0, 2])}, (), {}, InvalidQuery,
         "row: expected 0 to 1, got 2"),
        ({"hidden": ROW, "target": ONE, "row": np.array([0])}, (), {}, InvalidQuery,
         "row: expected one for each target, got [1] of target [2]"),
        ({"hidden": ROW, "target": ["word1", "nope"]}, (), {}, UnknownLabel, "no label 'nope'"),
        ({"hidden": ROW, "target": np.array([1.0, 2.0])}, (), {}, InvalidQuery,
         "target: expected BYTES, INT16"),
    ],
)  # fmt: skip
def test_an_error_says_what_was_expected(ask, inputs, outputs, parameters, error, sentence):
    with pytest.raises(ServiceError) as raised:
        ask(inputs, *outputs, **parameters)
    assert type(raised.value) is error
    assert sentence in str(raised.value)


def test_parameters_of_the_protocol_are_no_error(ask, hidden):
    ask({"hidden": hidden}, sequence_id=1, triton_x=True, binary_data_output=True)


@pytest.mark.parametrize(
    ("parameters", "options"),
    [
        ({}, RequestOptions(9.0, Priority.BATCH)),
        ({"priority": 0, "timeout": 0}, RequestOptions(9.0, Priority.BATCH)),
        ({"priority": 1}, RequestOptions(9.0, Priority.INTERACTIVE)),
        ({"priority": 2, "timeout": 1500}, RequestOptions(0.0015, Priority.BATCH)),
        ({"priority": "7"}, RequestOptions(9.0, Priority.BATCH)),
    ],
)
def test_priority_and_timeout_are_options(parameters, options):
    assert request_options(parameters, RequestOptions(9.0, Priority.BATCH)) == options
