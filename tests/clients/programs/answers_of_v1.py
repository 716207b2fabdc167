"""Rows and targets that the programs of Triton's clients ask about, and the answers of /v1."""

import json
import urllib.request

import numpy as np

HIDDEN = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
TARGETS = np.random.default_rng(1).integers(0, 11, (40, 9))
LABELS = np.array([f"word{i}" if i < 10 else "étoile" for i in TARGETS.ravel()], object)
LABELS = LABELS.reshape(TARGETS.shape)
ROWS_BY_DATATYPE = [("FP32", HIDDEN), ("FP64", HIDDEN.astype(np.float64))]
TARGETS_BY_DATATYPE = [("INT64", TARGETS), ("INT32", TARGETS.astype(np.int32)), ("BYTES", LABELS)]


def v1(url: str, operation: str, **query) -> dict:
    """Return the answer of an operation for all rows."""
    query["inputs"] = HIDDEN.tolist()
    request = urllib.request.Request(
        f"http://{url}/v1/models/words/{operation}", json.dumps(query).encode()
    )
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def target_answers(url: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the log-probabilities and the probabilities of all targets."""
    query = {"targets": TARGETS.tolist()}
    log = v1(url, "probabilities", log=True, **query)["log_probabilities"]
    return np.float32(log), np.float32(v1(url, "probabilities", **query)["probabilities"])


def check_top_k(result, results: list[dict]) -> None:
    """Compare the likeliest targets that a client read with those of /v1."""
    assert result.as_numpy("top_k_target").tolist() == [one["targets"] for one in results]
    labels = [[label.decode() for label in row] for row in result.as_numpy("top_k_label")]
    assert labels == [one["labels"] for one in results]


def check_classes(classes: np.ndarray, results: list[dict]) -> None:
    """Compare the texts of Triton's classification with the likeliest targets of /v1."""
    for row, one in zip(classes, results, strict=True):
        for text, target, label in zip(row, one["targets"], one["labels"], strict=False):
            value, index, name = text.decode().split(":")
            assert (int(index), name) == (target, label)
            assert 0 < float(value) < 1
