"""Rows of an encoder as tensors: padded with a mask, or of one length."""

import json

import numpy as np
import pytest

from tests.encoder_models import gru, mean
from tests.service.conftest import expect_error, serving
from tests.service.inference.test_named_inputs import export

from .requests import json_input, read_answer

IDS = np.array([[3, 1, 4], [5, 9, 0]])
MASK = np.array([[1, 1, 1], [1, 1, 0]])
ROWS = [[3, 1, 4], [5, 9]]


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders")
    export(folder, "mean", mean(), mask="mask")
    export(folder, "each", gru(outputs=["states"]), position="each")
    with serving(folder / "repository") as client:
        yield client


def infer(client, name: str, **inputs):
    body = {"inputs": [json_input(one, data) for one, data in inputs.items()]}
    return client.post(f"/v2/models/{name}/infer", content=json.dumps(body))


def test_the_padding_of_a_mask_is_cut_off(encoders):
    query = {"inputs": {"ids": ROWS}, "targets": [[1], [2]], "log": True}
    v1 = encoders.post("/v1/models/mean/probabilities", json=query).json()["log_probabilities"]
    got = read_answer(infer(encoders, "mean", ids=IDS, mask=MASK, target=np.array([[1], [2]])))
    np.testing.assert_array_equal(got["target_log_prob"], np.float32(v1))
    wrong = infer(encoders, "mean", ids=IDS, mask=MASK[:, ::-1].copy())
    expect_error(wrong, 422, "invalid_query", "mask: expected ones and then zeros in each row")


def test_each_position_may_have_a_target(encoders):
    got = read_answer(infer(encoders, "each", ids=IDS, target=IDS))["target_prob"]
    assert got.shape == IDS.shape


def test_the_rows_have_one_form(encoders):
    config = encoders.get("/v2/models/mean/config").json()
    assert {one["name"]: one["optional"] for one in config["input"]} == {
        "hidden": True, "ids": True, "mask": True, "target": True, "row": True,
    }  # fmt: skip
    hidden = np.zeros((2, 8), np.float32)
    both = infer(encoders, "mean", ids=IDS, hidden=hidden)
    expect_error(both, 422, "invalid_query", "expected the rows once, as hidden or ids, got hidden")
