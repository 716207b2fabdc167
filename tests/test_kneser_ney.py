"""The counting model of examples/next_word, which its network is compared with."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

NUM_WORDS = 7


@pytest.fixture(scope="module")
def kneser_ney() -> ModuleType:
    path = Path(__file__).parents[1] / "examples" / "next_word" / "kneser_ney.py"
    spec = importlib.util.spec_from_file_location("kneser_ney", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("length", [1, 2, 3, 8, 40, 3000])
@pytest.mark.parametrize("order", [2, 3, 6])
def test_the_words_after_any_context_have_probabilities_that_sum_to_one(kneser_ney, length, order):
    rng = np.random.default_rng(length)
    stream = np.minimum(rng.geometric(0.4, length), NUM_WORDS) - 1
    orders = kneser_ney.train(stream, NUM_WORDS, order)
    for context in (stream[-5:], rng.integers(0, NUM_WORDS, 5)):
        ends = [
            kneser_ney.log_probs(orders, np.append(context, word), NUM_WORDS)[-1]
            for word in range(NUM_WORDS)
        ]
        assert np.isfinite(ends).all()
        assert np.exp(ends).sum() == pytest.approx(1)


def test_discounts_are_estimated_where_the_text_is_large_enough(kneser_ney):
    counts = np.repeat([1, 2, 3, 4, 9], [100, 40, 20, 10, 5])
    y = 100 / 180
    wanted = [0, 1 - 2 * y * 0.4, 2 - 3 * y * 0.5, 3 - 4 * y * 0.5]
    np.testing.assert_allclose(kneser_ney.discounts(counts), wanted)
