"""`top_k` with a threshold answers as fastText's `predict(text, k, threshold)`."""

import fasttext
import numpy as np
import pytest

import hsoftmax
from hsoftmax.exporter import SourceOptions, export_file
from tests.exporter.sources.test_fasttext import SENTENCES, real_model


@pytest.fixture(scope="module")
def oracle():
    return fasttext.load_model(str(real_model()))


@pytest.fixture(scope="module", params=["exact", "fasttext"])
def model(request, tmp_path_factory):
    to = tmp_path_factory.mktemp(request.param) / "lid"
    export_file(real_model(), to, source="fasttext", options=SourceOptions(compat=request.param))
    return hsoftmax.load(to)


@pytest.mark.parametrize("k", [1, 3, 176])
@pytest.mark.parametrize("threshold", [0.004, 0.01, 0.1, 0.5, 0.9])
def test_the_labels_above_a_threshold_are_those_of_fasttext(oracle, model, k, threshold):
    hidden = np.array([oracle.get_sentence_vector(text) for text in SENTENCES.values()])
    compared = 0
    answers = model.top_k(hidden, k, threshold=threshold)
    for text, answer in zip(SENTENCES.values(), answers, strict=True):
        labels, probabilities = oracle.predict(text, k=-1, threshold=0.0)
        if np.abs(probabilities - threshold).min() < 2e-4:  # fastText's are not exact
            continue
        above = [label.removeprefix("__label__") for label, probability
                 in zip(labels, probabilities, strict=True) if probability > threshold]  # fmt: skip
        assert answer.labels == tuple(above[:k])
        predicted = oracle.predict(text, k=k, threshold=threshold)[0]
        assert tuple(model.targets_of(predicted)) == tuple(answer.targets)
        assert answer.truncated == (len(above) > k)
        compared += 1
    assert compared >= 7
