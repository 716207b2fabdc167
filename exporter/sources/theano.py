"""Source `theano`: the arrays that are arguments of `theano.tensor.nnet.h_softmax`.

`.npz` or safetensors with W1 [H, C], b1 [C], W2 [C, H, K], b2 [C, K] and optionally n_outputs,
n_classes (C), n_outputs_per_class (K) and batch_size. Theano saves none of these numbers itself.
"""

from pathlib import Path

from hsoftmax import models
from hsoftmax.exporter.errors import SourceError

from .named_tensors import NamedTensors, named_arrays, require_arrays
from .source import SourceModel, SourceOptions

_ARRAY_NAMES = ("W1", "b1", "W2", "b2")
_SIZE_NAMES = {"n_classes": 0, "n_outputs_per_class": 2}  # axis of W2 with this size
_OWN_NAMES = {*_ARRAY_NAMES, *_SIZE_NAMES, "n_outputs"}
_HARMLESS = {r"batch_size": "a bundle answers batches of any size"}


def load(path: Path, options: SourceOptions) -> SourceModel:
    """Load the file's two-level softmax; `options.num_targets` overrides its n_outputs."""
    with named_arrays(path, options, _OWN_NAMES.__contains__, _HARMLESS) as arrays:
        weights = require_arrays(arrays, *_ARRAY_NAMES, path=path)
        num_targets = _integer(arrays, "n_outputs", path)
        if options.num_targets is not None:
            num_targets = options.num_targets
        model = models.from_theano(*weights, num_targets=num_targets, padding=options.padding)
        for name, axis in _SIZE_NAMES.items():
            _expect_size(arrays, name, weights[2].shape[axis], path)
        return SourceModel(model)


def recognise(names: frozenset[str]) -> str | None:
    """Return a description of a file with these names if it has this format, else None."""
    return f"arrays {', '.join(_ARRAY_NAMES)}" if names >= set(_ARRAY_NAMES) else None


def _integer(arrays: NamedTensors, name: str, path: Path) -> int | None:
    if name not in arrays:
        return None
    array = arrays[name]
    if array.size != 1 or array.dtype.kind not in "iu":
        raise SourceError(
            f"{path.name}: {name}: expected one integer, got {array.dtype} {list(array.shape)}"
        )
    return int(array.item())


def _expect_size(arrays: NamedTensors, name: str, size: int, path: Path) -> None:
    stored = _integer(arrays, name, path)
    if stored not in {None, size}:
        raise SourceError(f"{path.name}: {name}: expected {size} as W2 has, got {stored}")
