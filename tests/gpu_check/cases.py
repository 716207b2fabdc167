"""The bundles that are checked: every family in every precision, and the shapes that matter."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hsoftmax import models
from hsoftmax.models import sparse_block_dot
from hsoftmax.models.choices import Precision
from tests.exporter.graphs.test_hierarchical_softmax import softmax
from tests.models.adaptive import adaptive
from tests.models.trees import random_huffman

_RNG = np.random.default_rng(0)
_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")
# The time of a check is measured with the graphs of this one, and weights of their own.
TIMED = "equal blocks, fp32"


@dataclass(frozen=True)
class Case:
    """A model, and the precision in which its weights are stored."""

    name: str
    model: models.Model
    precision: Precision


def small_cases() -> list[Case]:
    """Return one bundle of equal blocks, for a trial of the check."""
    return [Case(TIMED, softmax([5], [4] * 5, num_targets=18), "fp32")]


def cases() -> Iterator[Case]:
    """Yield the bundles of the archive."""
    for name, model in _families().items():
        for precision in _PRECISIONS:
            yield Case(f"{name}, {precision}", model, precision)
    for name, model in _shapes().items():
        yield Case(f"{name}, fp32", model, "fp32")


def _families() -> dict[str, models.Model]:
    return {
        "equal blocks": softmax([100], [100] * 100, hidden=64, num_targets=9_950),
        "unequal blocks": softmax([40], (1 + _RNG.zipf(1.5, 40) % 300).tolist(), hidden=33),
        "three levels": softmax([8], [10] * 8, [7] * 80, hidden=32),
        "adaptive": adaptive(
            1000, (2000, 3000), hidden=32, widths=(16, 4), head_bias=True, head_width=24
        ),
        "tree": random_huffman(3000, 32, lean=0.4, biases=True),
    }


def _shapes() -> dict[str, models.Model]:
    in_any_order = np.random.default_rng(1).permutation(40 * 30)[:1100]
    layer = (_RNG.normal(size=(6, 9, 8, 12)), _RNG.normal(size=(9, 12)))
    return {
        "large blocks": softmax([6], [2500] * 6, hidden=32),
        "theano padding": softmax([20], [30] * 20, num_targets=571, padding="theano"),
        "targets in any order": softmax(
            [40], [30] * 40, hidden=24, num_targets=1100, target_rows=in_any_order
        ),
        "blocks of one row": softmax([300], [1] * 300, hidden=16),
        "deep tree": random_huffman(500, 16, lean=0.05),
        "fastText tree": random_huffman(700, 16, lean=0.3, compat="fasttext"),
        "layer": sparse_block_dot.build(*layer),
    }
