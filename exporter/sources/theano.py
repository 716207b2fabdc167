"""Source `theano`: the arrays that are arguments of `theano.tensor.nnet.h_softmax`.

`.npz` or safetensors with W1 [H, C], b1 [C], W2 [C, H, K], b2 [C, K] and optionally n_outputs.
"""

from pathlib import Path

from hsoftmax import models
from hsoftmax.exporter.errors import SourceError
from hsoftmax.models.arrays import Array

from .array_files import read_arrays, require_arrays
from .detection import contained_names
from .source import SourceModel, SourceOptions

_ARRAY_NAMES = ("W1", "b1", "W2", "b2")


def load(path: Path, options: SourceOptions) -> SourceModel:
    """Load the file's two-level softmax; `options.num_targets` overrides its n_outputs."""
    arrays = read_arrays(path, lambda name: name in {*_ARRAY_NAMES, "n_outputs"})
    weights = require_arrays(arrays, *_ARRAY_NAMES, path=path)
    num_targets = options.num_targets
    if num_targets is None and "n_outputs" in arrays:
        num_targets = _scalar(arrays["n_outputs"], path)
    model = models.from_theano(*weights, num_targets=num_targets, padding=options.padding)
    expect_used_clusters(model)
    return SourceModel(model)


def detect(path: Path) -> str | None:
    """Return a description of the file if it has this format, else None."""
    return (
        f"arrays {', '.join(_ARRAY_NAMES)}" if contained_names(path) >= set(_ARRAY_NAMES) else None
    )


def _scalar(array: Array, path: Path) -> int:
    if array.size != 1 or array.dtype.kind not in "iu":
        raise SourceError(
            f"{path.name}: n_outputs: expected one integer, got {array.dtype} {list(array.shape)}"
        )
    return int(array.item())


def expect_used_clusters(model: models.HierarchicalSoftmax) -> None:
    """Raise WeightsError for a cluster without targets: num_targets is then probably wrong."""
    last = model.levels[-1]
    block_size = last.num_rows // last.num_blocks
    min_targets = last.num_rows - block_size + 1
    if model.num_targets < min_targets:
        raise models.WeightsError(
            f"num_targets: expected {min_targets} to {last.num_rows} for {last.num_blocks} "
            f"clusters of {block_size} rows, got {model.num_targets}, which leaves a cluster empty"
        )
