"""A number in a URL is what JSON takes for one, whichever route reads it."""

import io

import numpy as np
import pytest

from tests.service.conftest import HIDDEN, expect_error

NPY = {"content-type": "application/x-npy"}
NO_INTEGERS = ["1_0", "+3", " 5", "007", "٣", "0x1", "1e", "five", ""]


def npy_row() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros((1, HIDDEN), dtype=np.float32))
    return stream.getvalue()


@pytest.mark.parametrize("text", NO_INTEGERS)
@pytest.mark.parametrize("route", ["/v1/files", "/v1/batches"])
def test_a_limit_in_another_notation_is_refused(client, route, text):
    sentence = f"limit: expected a valid integer, got {text!r}"
    expect_error(client.get(route, params={"limit": text}), 422, "invalid_query", sentence)


@pytest.mark.parametrize("text", NO_INTEGERS)
@pytest.mark.parametrize(
    ("operation", "name"), [("top_k", "k"), ("top_k", "max_blocks"), ("sample", "num_samples"),
                            ("sample", "seed"), ("score", "k"), ("score", "seed")]
)  # fmt: skip
def test_a_parameter_in_another_notation_is_refused(client, operation, name, text):
    headers = NPY if operation != "score" else {"content-type": "application/x-ndjson"}
    body = npy_row() if operation != "score" else b""
    url = f"/v1/models/words/{operation}"
    response = client.post(url, params={name: text}, content=body, headers=headers)
    expect_error(response, 422, "invalid_query", f"{name}: expected an integer")


@pytest.mark.parametrize("text", ["1_0", "+3", " 5", "007", "٣", "3.0"])
def test_a_target_in_another_notation_is_a_label(client, text):
    url = "/v1/models/words/probabilities"
    response = client.post(url, params={"targets": text}, content=npy_row(), headers=NPY)
    expect_error(response, 422, "unknown_label", f"no label {text!r} in words")
