"""Source `theano`: the arrays that `theano.tensor.nnet.h_softmax` is called with.

`.npz` or safetensors with W1 [H, C], b1 [C], W2 [C, H, K], b2 [C, K] and perhaps n_outputs.
"""

from pathlib import Path

from hsoftmax import models
from hsoftmax.exporter.errors import SourceError
from hsoftmax.models.arrays import Array

from .array_files import read_arrays, require
from .detection import names
from .source import Loaded, Options

_WEIGHTS = ("W1", "b1", "W2", "b2")


def load(path: Path, options: Options) -> Loaded:
    """The file's two-level softmax; `options.num_targets` overrides its n_outputs."""
    arrays = read_arrays(path, lambda name: name in {*_WEIGHTS, "n_outputs"})
    weights = require(arrays, *_WEIGHTS, path=path)
    num_targets = options.num_targets
    if num_targets is None and "n_outputs" in arrays:
        num_targets = _scalar(arrays["n_outputs"], path)
    model = models.from_theano(*weights, num_targets=num_targets, padding=options.padding)
    expect_used_clusters(model)
    return Loaded(model)


def recognises(path: Path) -> str | None:
    return f"arrays {', '.join(_WEIGHTS)}" if names(path) >= set(_WEIGHTS) else None


def _scalar(array: Array, path: Path) -> int:
    if array.size != 1 or array.dtype.kind not in "iu":
        raise SourceError(
            f"{path.name}: n_outputs: expected one integer, got {array.dtype} {list(array.shape)}"
        )
    return int(array.item())


def expect_used_clusters(model: models.HierarchicalSoftmax) -> None:
    """A cluster without a single target is far likelier a wrong num_targets than a wish."""
    last = model.levels[-1]
    block_size = last.num_rows // last.num_blocks
    fewest = last.num_rows - block_size + 1
    if model.num_targets < fewest:
        raise models.WeightsError(
            f"num_targets: expected {fewest} to {last.num_rows} for {last.num_blocks} clusters of "
            f"{block_size} rows, got {model.num_targets}, which leaves a cluster empty"
        )
