"""Tests that the bundle of a trained adaptive softmax gives PyTorch's values for held-out words."""

import json
from pathlib import Path

import numpy as np
import pytest

from hsoftmax.exporter import export_file
from hsoftmax.runtime.sessions import open_session

EXAMPLE = Path(__file__).parents[2] / "examples" / "adaptive_addresses"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    to = tmp_path_factory.mktemp("repository") / "addresses"
    return export_file(
        EXAMPLE / "model.safetensors", to, source="auto", labels=EXAMPLE / "labels.txt"
    )


def test_held_out_words_have_the_log_prob_that_pytorch_gave(exported):
    heldout = np.load(EXAMPLE / "heldout.npz")
    target = heldout["target"]
    session = open_session(exported.file("target_log_prob.onnx"))
    pairs = {"row": np.arange(len(target)), "target": target}
    (log_prob,) = session.run(None, {"hidden": heldout["hidden"], **pairs})
    np.testing.assert_allclose(log_prob, heldout["log_prob"], atol=1e-5)
    figures = json.loads((EXAMPLE / "training.json").read_text())
    assert np.exp(-log_prob.mean()) == pytest.approx(figures["heldout_perplexity"], rel=1e-5)
    assert list(figures["cutoffs"]) == exported.manifest.attributes["cutoffs"]


def test_the_best_word_rarely_needs_a_tail(exported):
    hidden = np.load(EXAMPLE / "heldout.npz")["hidden"]
    limits = {"k": np.array([1]), "max_blocks": np.array([0])}
    session = open_session(exported.file("top_k.onnx"))
    _, target, blocks, exact = session.run(None, {"hidden": hidden, **limits})
    full = open_session(exported.file("log_probs.onnx")).run(None, {"hidden": hidden})[0]
    assert (target[:, 0] == full.argmax(axis=1)).all()
    assert exact.all()
    assert (blocks == 0).mean() > 0.5
