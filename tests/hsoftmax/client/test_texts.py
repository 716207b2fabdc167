"""Texts as inputs of a model in Python: the same results over HTTP and in process."""

import fasttext
import numpy as np
import pytest

import hsoftmax
from hsoftmax.exporter import SourceOptions, export_file
from hsoftmax.models import UserError
from tests.exporter.sources.test_fasttext import SENTENCES, real_model
from tests.service.processes import Process

TEXTS = list(SENTENCES.values())


@pytest.fixture(scope="module")
def languages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    options = SourceOptions(compat="fasttext")
    return export_file(real_model(), folder / "lid", source="fasttext", options=options).path


@pytest.fixture(scope="module")
def both(languages):
    """The model over HTTP, and in process."""
    process = Process(languages.parents[1])
    with hsoftmax.Client(f"http://{process.address}") as client:
        yield client.model("lid"), hsoftmax.load(languages)
    process.end()


def test_texts_have_fasttexts_labels(both):
    oracle = fasttext.load_model(str(real_model()))
    for model in both:
        for text, best in zip(TEXTS, model.top_k(TEXTS, 1), strict=True):
            labels, probabilities = oracle.predict(text)
            assert best.labels == tuple(label.removeprefix("__label__") for label in labels)
            np.testing.assert_allclose(best.probabilities, probabilities, atol=2e-6)


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.probabilities(TEXTS, list(SENTENCES)),
        lambda m: m.distribution([text.split() for text in TEXTS]),
        lambda m: m.sample(TEXTS, 3, seed=1).probabilities,
        lambda m: [r["log_prob"] for r in m.score({"input": t, "target": "en"} for t in TEXTS)],
        lambda m: [r["log_prob"] for r in m.score({"text": t, "target": "en"} for t in TEXTS)],
    ],
)
def test_every_method_gives_the_same_over_http_and_in_process(both, call):
    remote, local = map(call, both)
    np.testing.assert_allclose(remote, local, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("inputs", [["hello", "a\nb"], ["hello", [0.5] * 16], {"tokens": [[1]]}])
def test_wrong_texts_are_refused(both, inputs):
    for model in both:
        with pytest.raises(UserError, match="inputs"):
            model.top_k(inputs)


def test_a_text_that_is_no_unicode_is_one_sentence_over_http(both):
    with pytest.raises(UserError, match="query: expected values that JSON can hold"):
        both[0].top_k(["a\udc80"])
