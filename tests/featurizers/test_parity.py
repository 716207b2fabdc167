"""A bundle's answer to a text is fastText's own: the labels and their probabilities.

The marked test asks for thousands of lines in the languages whose catalogues are installed.
"""

import fasttext
import numpy as np
import pytest

import hsoftmax
from hsoftmax.exporter import SourceOptions, export_file
from tests.exporter.sources.test_fasttext import SENTENCES, real_model

from .catalogues import LOCALE, lines_by_language
from .test_fasttext import _THREADS, ODD_TEXTS, text_file  # noqa: F401

TOLERANCE = 2e-6  # fastText computes the sigmoids of its tree in float32
LONG = "le navire quittera le port " * 37_000  # a million characters
KINDS = ("lid.176", "word n-grams", "pruned")


@pytest.fixture(scope="module", params=KINDS)
def model(request, tmp_path_factory, text_file):  # noqa: F811
    """fastText's model, and the same as a bundle with fastText's own scores."""
    folder = tmp_path_factory.mktemp("parity")
    path = real_model() if request.param == "lid.176" else folder / "model.bin"
    if request.param != "lid.176":
        trained = fasttext.train_supervised(
            str(text_file), loss="hs", dim=10, epoch=5, minCount=1, minn=2, maxn=4, wordNgrams=3,
            bucket=5000, thread=_THREADS, verbose=0,
        )  # fmt: skip
        if request.param == "pruned":
            trained.quantize(cutoff=800, qnorm=True, dsub=2, thread=_THREADS, verbose=0)
        trained.save_model(str(path))
    options = SourceOptions(compat="fasttext")
    exported = export_file(path, folder / "bundle", source="fasttext", options=options)
    return fasttext.load_model(str(path)), hsoftmax.load(exported.path)


def expect_parity(model, texts: list[str]) -> None:
    oracle, bundle = model
    labels = bundle.labels_of(range(bundle.describe().num_targets))
    place = {f"__label__{label}": i for i, label in enumerate(labels)}
    named, probabilities = oracle.predict(texts, k=-1)
    expected = np.zeros((len(texts), len(labels)))
    for row, some, values in zip(expected, named, probabilities, strict=True):
        row[[place[label] for label in some]] = values
    got, is_named = bundle.distribution(texts), expected > 0
    np.testing.assert_allclose(got[is_named], expected[is_named], atol=TOLERANCE)
    assert got[~is_named].max(initial=0) < 2e-5  # fastText leaves out what is unlikely
    for text, best, some, values in zip(
        texts, bundle.top_k(texts, 1), named, probabilities, strict=True
    ):
        assert abs(best.probabilities[0] - values[0]) < TOLERANCE, text[:60]
        if len(values) < 2 or values[0] - values[1] > 2 * TOLERANCE:
            assert f"__label__{best.labels[0]}" == some[0], text[:60]


def test_labels_and_probabilities_are_fasttexts(model):
    expect_parity(model, [*SENTENCES.values(), *ODD_TEXTS, LONG, "x" * 10**6, "日本語" * 50_000])


@pytest.mark.slow
def test_labels_and_probabilities_of_thousands_of_lines_are_fasttexts(model):
    by_language = lines_by_language()
    lines = [line for some in by_language.values() for line in some]
    if len(by_language) < 30 or len(lines) < 2000:
        pytest.skip(f"{LOCALE} has catalogues of {len(by_language)} languages, {len(lines)} lines")
    expect_parity(model, lines)
