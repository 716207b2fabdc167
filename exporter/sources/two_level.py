"""Source `two-level`: targets in any clusters of any size, as plain arrays.

`.npz` or safetensors with W1 [H, C], b1 [C], weight [N, H] and bias [N] in the order of targets,
and either class_of [N] or, if clusters are contiguous, offsets [C + 1].
"""

from pathlib import Path

import numpy as np

from hsoftmax.exporter.errors import SourceError
from hsoftmax.models import HierarchicalSoftmax, WeightsError, hierarchical_softmax
from hsoftmax.models.arrays import Array, Int64, expect_ndim, expect_shape, to_int64

from .named_tensors import named_arrays, require_arrays
from .source import SourceModel, SourceOptions, expect_num_targets

_ARRAY_NAMES = ("W1", "b1", "weight", "bias")
_CLUSTER_ARRAY_NAMES = ("class_of", "offsets")
_OWN_NAMES = {*_ARRAY_NAMES, *_CLUSTER_ARRAY_NAMES}


def load(path: Path, options: SourceOptions) -> SourceModel:
    """Load the file's softmax, with its rows sorted by cluster."""
    with named_arrays(path, options, _OWN_NAMES.__contains__) as arrays:
        W1, b1, weight, bias = require_arrays(arrays, *_ARRAY_NAMES, path=path)
        expect_ndim("W1", W1, "H", "C")
        expect_ndim("weight", weight, "N", "H")
        expect_num_targets(options, path, len(weight), "the rows of weight")
        cluster_arrays = [name for name in _CLUSTER_ARRAY_NAMES if name in arrays]
        if len(cluster_arrays) != 1:
            raise SourceError(
                f"{path.name}: expected class_of or offsets, "
                f"got {' and '.join(cluster_arrays) or 'neither'}"
            )
        build = _from_offsets if cluster_arrays == ["offsets"] else _from_clusters
        return SourceModel(build(W1, b1, weight, bias, arrays[cluster_arrays[0]]))


def recognise(names: frozenset[str]) -> str | None:
    """Return a description of a file with these names if it has this format, else None."""
    if not names >= set(_ARRAY_NAMES) or not names & set(_CLUSTER_ARRAY_NAMES):
        return None
    return f"arrays {', '.join(_ARRAY_NAMES)} of two levels"


def _from_offsets(
    W1: Array, b1: Array, weight: Array, bias: Array, offsets: Array
) -> HierarchicalSoftmax:
    return _build(W1, b1, weight, bias, to_int64("offsets", offsets), None)


def _from_clusters(
    W1: Array, b1: Array, weight: Array, bias: Array, class_of: Array
) -> HierarchicalSoftmax:
    clusters = W1.shape[1]
    expect_shape("class_of", class_of, (len(weight),))
    expect_shape("bias", bias, (len(weight),))
    cluster = to_int64("class_of", class_of)
    if len(cluster) and not 0 <= cluster.min() <= cluster.max() < clusters:
        raise WeightsError(
            f"class_of: expected 0 to {clusters - 1}, got {cluster.min()} to {cluster.max()}"
        )
    sizes = np.bincount(cluster, minlength=clusters)
    if (sizes == 0).any():
        raise WeightsError(
            f"cluster {int(np.argmin(sizes))}: expected at least one target, got none"
        )
    order = np.argsort(cluster, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    return _build(W1, b1, weight[order], bias[order], offsets, np.argsort(order))


def _build(
    W1: Array, b1: Array, weight: Array, bias: Array, offsets: Array, target_rows: Int64 | None
) -> HierarchicalSoftmax:
    levels = (
        hierarchical_softmax.build_level("level 0 (W1, b1)", W1.T, b1, np.array([0, W1.shape[1]])),
        hierarchical_softmax.build_level("level 1 (weight, bias)", weight, bias, offsets),
    )
    is_reordered = target_rows is not None and (np.diff(target_rows) != 1).any()
    return hierarchical_softmax.build(
        levels, num_targets=len(weight), target_rows=target_rows if is_reordered else None
    )
