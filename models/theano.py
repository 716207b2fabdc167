"""Converts the weights of Theano's two-level `h_softmax` into a HierarchicalSoftmax.

Target t is in cluster t // K at position t % K. Theano stores one [H, K] matrix per cluster; this
model stores each target's weight vector as one contiguous row. Reference:
`theano.tensor.nnet.h_softmax`.
"""

import numpy as np

from .arrays import Array, expect_ndim, expect_shape
from .choices import Padding
from .hierarchical_softmax import HierarchicalSoftmax, build, build_level


def from_theano(
    W1: Array,
    b1: Array,
    W2: Array,
    b2: Array,
    *,
    num_targets: int | None = None,
    padding: Padding = "mask",
) -> HierarchicalSoftmax:
    """Build a model of two levels from W1 [H, C], b1 [C], W2 [C, H, K], b2 [C, K].

    Args:
        num_targets: Theano's n_outputs; C * K by default.
        padding: treatment of the slots beyond num_targets, see HierarchicalSoftmax.

    Raises:
        WeightsError: shapes that do not fit, values that are not finite.
    """
    expect_ndim("W1", W1, "H", "C")
    hidden_size, clusters = W1.shape
    expect_ndim("W2", W2, "C", "H", "K")
    block_size = W2.shape[2]
    expect_shape("b1", b1, (clusters,))
    expect_shape("W2", W2, (clusters, hidden_size, block_size))
    expect_shape("b2", b2, (clusters, block_size))
    slots = clusters * block_size
    return build(
        (
            build_level("level 0 (W1, b1)", W1.T, b1, np.array([0, clusters])),
            build_level(
                "level 1 (W2, b2)",
                W2.transpose(0, 2, 1).reshape(slots, hidden_size),
                b2.reshape(slots),
                np.arange(0, slots + 1, max(block_size, 1)),
            ),
        ),
        num_targets=slots if num_targets is None else num_targets,
        padding=padding,
    )
