"""Source `two-level`: targets in any clusters of any size, as plain arrays.

`.npz` or safetensors with W1 [H, C], b1 [C], weight [N, H] and bias [N] in the order of targets,
and either class_of [N] or, where clusters are contiguous, offsets [C + 1].
"""

from pathlib import Path

import numpy as np

from hsoftmax.exporter.errors import SourceError
from hsoftmax.models import HierarchicalSoftmax, WeightsError, hierarchical_softmax
from hsoftmax.models.arrays import Array, Int64, expect_ndim, expect_shape, integers

from .array_files import read_arrays, require
from .detection import names
from .source import Loaded, Options, expect_num_targets

_WEIGHTS = ("W1", "b1", "weight", "bias")
_CLUSTERS = ("class_of", "offsets")


def load(path: Path, options: Options) -> Loaded:
    """The file's softmax, its rows sorted by cluster."""
    arrays = read_arrays(path, lambda name: name in {*_WEIGHTS, *_CLUSTERS})
    W1, b1, weight, bias = require(arrays, *_WEIGHTS, path=path)
    expect_ndim("W1", W1, "H", "C")
    expect_ndim("weight", weight, "N", "H")
    expect_num_targets(options, path, len(weight), "the rows of weight")
    given = [name for name in _CLUSTERS if name in arrays]
    if len(given) != 1:
        raise SourceError(
            f"{path.name}: expected class_of or offsets, got {' and '.join(given) or 'neither'}"
        )
    build = _from_offsets if given == ["offsets"] else _from_clusters
    return Loaded(build(W1, b1, weight, bias, arrays[given[0]]))


def recognises(path: Path) -> str | None:
    found = names(path)
    if not found >= set(_WEIGHTS) or not found & set(_CLUSTERS):
        return None
    return f"arrays {', '.join(_WEIGHTS)} of two levels"


def _from_offsets(
    W1: Array, b1: Array, weight: Array, bias: Array, offsets: Array
) -> HierarchicalSoftmax:
    return _build(W1, b1, weight, bias, integers("offsets", offsets), None)


def _from_clusters(
    W1: Array, b1: Array, weight: Array, bias: Array, class_of: Array
) -> HierarchicalSoftmax:
    clusters = W1.shape[1]
    expect_shape("class_of", class_of, (len(weight),))
    expect_shape("bias", bias, (len(weight),))
    cluster = integers("class_of", class_of)
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
    moved = target_rows is not None and (np.diff(target_rows) != 1).any()
    return hierarchical_softmax.build(
        levels, num_targets=len(weight), target_rows=target_rows if moved else None
    )
