"""Random binary trees, from balanced to degenerate, with targets and nodes in any order."""

import numpy as np
from hypothesis import strategies as st

from hsoftmax.models import HuffmanSoftmax, huffman_softmax


def random_paths(num_targets: int, rng: np.random.Generator, lean: float = 0.5):
    """Return (path, sign) of a random tree; `lean` near 0 or 1 makes it a chain."""
    steps: dict[int, list[tuple[int, int]]] = {}
    nodes = iter(rng.permutation(max(num_targets - 1, 1)))
    todo = [(rng.permutation(num_targets), [])]
    while todo:
        targets, before = todo.pop()
        if len(targets) == 1:
            steps[int(targets[0])] = before
            continue
        split = 1 + rng.binomial(len(targets) - 2, lean)
        node = int(next(nodes))
        todo.append((targets[:split], [*before, (node, 1)]))
        todo.append((targets[split:], [*before, (node, -1)]))
    depth = max(map(len, steps.values()))
    table = np.zeros((2, num_targets, depth), dtype=np.int64)
    for target, path in steps.items():
        table[:, target, : len(path)] = np.array(path).reshape(-1, 2).T
    return table[0], table[1]


def random_huffman(
    num_targets: int, hidden_size: int, *, seed: int = 0, lean: float = 0.5, unused: int = 0,
    compat: huffman_softmax.Compat = "exact", biases: bool = False,
) -> HuffmanSoftmax:  # fmt: skip
    rng = np.random.default_rng(seed)
    path, sign = random_paths(num_targets, rng, lean)
    syn1 = rng.normal(size=(max(num_targets - 1, 1) + unused, hidden_size))
    bias = rng.normal(size=len(syn1)) if biases else None
    return huffman_softmax.build(syn1, path, sign, bias=bias, compat=compat)


@st.composite
def huffman_softmaxes(draw: st.DrawFn, max_targets: int = 40) -> HuffmanSoftmax:
    return random_huffman(
        draw(st.integers(1, max_targets)),
        draw(st.integers(1, 9)),
        seed=draw(st.integers(0, 2**32 - 1)),
        lean=draw(st.sampled_from([0.0, 0.1, 0.5, 0.9])),
        unused=draw(st.integers(0, 2)),
        biases=draw(st.booleans()),
    )
