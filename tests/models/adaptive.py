"""Random adaptive softmaxes with any cutoffs, widths, biases and projections."""

import numpy as np
from hypothesis import strategies as st

from hsoftmax.models import AdaptiveSoftmax, adaptive_softmax
from hsoftmax.models.adaptive_softmax import build_projected


def layer(rng, rows: int, hidden: int, *, width: int | None = None, bias: bool = False):
    """Build a random layer, with a projection if a width is given."""
    return build_projected(
        "layer",
        rng.normal(size=(rows, hidden if width is None else width)),
        rng.normal(size=rows) if bias else None,
        None if width is None else rng.normal(size=(width, hidden)),
    )


def adaptive(
    shortlist: int = 4,
    sizes: tuple[int, ...] = (3, 5),
    *,
    hidden: int = 6,
    widths: tuple[int | None, ...] | None = None,
    head_width: int | None = None,
    head_bias: bool = False,
    tail_bias: bool = False,
    seed: int = 0,
) -> AdaptiveSoftmax:
    rng = np.random.default_rng(seed)
    head = layer(rng, shortlist + len(sizes), hidden, width=head_width, bias=head_bias)
    tails = [
        layer(rng, size, hidden, width=width, bias=tail_bias)
        for size, width in zip(sizes, widths or (None,) * len(sizes), strict=True)
    ]
    return adaptive_softmax.build(head, tails)


@st.composite
def adaptive_softmaxes(draw: st.DrawFn) -> AdaptiveSoftmax:
    sizes = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    width = st.one_of(st.none(), st.integers(0, 4))
    return adaptive(
        draw(st.integers(1, 6)),
        sizes,
        hidden=draw(st.integers(1, 7)),
        widths=tuple(draw(width) for _ in sizes),
        head_width=draw(st.one_of(st.none(), st.integers(1, 4))),
        head_bias=draw(st.booleans()),
        tail_bias=draw(st.booleans()),
        seed=draw(st.integers(0, 2**32 - 1)),
    )
