"""Random hierarchical softmaxes for property tests: any levels, block sizes and targets."""

import numpy as np
from hypothesis import strategies as st

from hsoftmax.models import HierarchicalSoftmax, hierarchical_softmax


@st.composite
def hierarchical_softmaxes(draw: st.DrawFn, max_levels: int = 3) -> HierarchicalSoftmax:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    hidden_size = draw(st.integers(1, 9))
    levels, blocks = [], 1
    for i in range(draw(st.integers(1, max_levels))):
        sizes = np.array(draw(st.lists(st.integers(1, 5), min_size=blocks, max_size=blocks)))
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        rows = int(offsets[-1])
        weight = rng.normal(size=(rows, hidden_size))
        levels.append(
            hierarchical_softmax.build_level(f"level {i}", weight, rng.normal(size=rows), offsets)
        )
        blocks = rows
    num_targets = draw(st.integers(1, blocks))
    scattered = draw(st.booleans())
    return hierarchical_softmax.build(
        tuple(levels),
        num_targets=num_targets,
        target_rows=rng.permutation(blocks)[:num_targets] if scattered else None,
        padding=draw(st.sampled_from(["mask", "theano"])),
    )


def hidden_for(model: HierarchicalSoftmax, batch: int = 3, seed: int = 0, scale: float = 1.0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(batch, model.hidden_size)) * scale).astype(np.float32)
