"""Source `theanolm`: the hierarchical softmax layer of a TheanoLM model, an HDF5 file.

layers/<any>/input/W [H, C], input/b, level1/W [C, H, K], level1/b, which are Theano's W1 to b2. The
targets are the classes of vocabulary/classes, one for each of vocabulary/words unless several words
share one. What else training left in the file is ignored.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hsoftmax import models
from hsoftmax.exporter.errors import SourceError
from hsoftmax.models.arrays import Array, Int64, integers

from .detection import article, kind
from .source import Loaded, Options
from .theano import expect_used_clusters

_ARRAYS = ("input/W", "input/b", "level1/W", "level1/b")


def load(path: Path, options: Options) -> Loaded:
    """The one layer of the file that has two levels, with words as labels where they fit."""
    if (found := kind(path)) != "HDF5 file":
        raise SourceError(f"{path.name}: expected an HDF5 file of TheanoLM's, got {article(found)}")
    with _opened(path) as file:
        layer = _layer(file, path)
        arrays = [np.asarray(layer[name]) for name in _ARRAYS]
        words, classes = _vocabulary(file, path)
    num_targets = options.num_targets or _num_classes(words, classes)
    model = models.from_theano(*arrays, num_targets=num_targets, padding=options.padding)
    expect_used_clusters(model)
    return Loaded(model, _labels(words, classes, model.num_targets))


def recognises(path: Path) -> str | None:
    return "an HDF5 file, as TheanoLM writes" if kind(path) == "HDF5 file" else None


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        import h5py
    except ModuleNotFoundError:
        raise SourceError(
            f"{path.name}: expected h5py to read HDF5 with, got none: pip install '.[hdf5]'"
        ) from None
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, TypeError) as error:
        raise SourceError(
            f"{path.name}: expected a whole HDF5 file, got one that is damaged "
            f"({type(error).__name__})"
        ) from None


def _layer(file: Any, path: Path) -> Any:  # noqa: ANN401 -- h5py has no types
    layers = file.get("layers", {})
    found = [name for name in layers if all(f"{name}/{array}" in layers for array in _ARRAYS)]
    if len(found) == 1:
        return layers[found[0]]
    got = f"layers {', '.join(found or layers)}" if len(layers) else "no layers"
    raise SourceError(
        f"{path.name}: expected one layer with {', '.join(_ARRAYS)} (type hsoftmax), got {got}"
    )


def _vocabulary(file: Any, path: Path) -> tuple[tuple[str, ...], Int64 | None]:  # noqa: ANN401
    words = file.get("vocabulary/words")
    try:
        decoded = () if words is None else tuple(words.asstr()[()].tolist())
    except UnicodeDecodeError:
        raise SourceError(
            f"{path.name}: vocabulary/words: expected UTF-8, got other bytes"
        ) from None
    classes = file.get("vocabulary/classes")
    return decoded, None if classes is None else integers("vocabulary/classes", classes[()])


def _num_classes(words: tuple[str, ...], classes: Array | None) -> int | None:
    if classes is not None and len(classes):
        return int(classes.max()) + 1
    return len(words) or None


def _labels(
    words: tuple[str, ...], classes: Int64 | None, num_targets: int
) -> tuple[str, ...] | None:
    """The word of each target, where each has one of its own."""
    if len(words) != num_targets:
        return None
    if classes is None:
        return words
    if sorted(classes.tolist()) != list(range(num_targets)):
        return None
    return tuple(words[word] for word in np.argsort(classes))
