"""Source `theanolm`: the hierarchical softmax layer of a TheanoLM model, an HDF5 file.

The file has layers/<any>/input/W [H, C], input/b, level1/W [C, H, K], level1/b, which are Theano's
W1, b1, W2 and b2. The targets are the classes of vocabulary/classes: one for each of
vocabulary/words, unless several words share one. Other content is ignored.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hsoftmax import models
from hsoftmax.exporter.errors import SourceError
from hsoftmax.exporter.files.hdf5_probe import Hdf5Error, expect_readable
from hsoftmax.exporter.files.input_file import max_expanded_bytes
from hsoftmax.models.arrays import Array, Int64, to_int64
from hsoftmax.models.decoding import decoding

from .detection import file_kind, with_article
from .source import SourceModel, SourceOptions
from .theano import expect_used_clusters

_ARRAY_NAMES = ("input/W", "input/b", "level1/W", "level1/b")


def load(path: Path, options: SourceOptions) -> SourceModel:
    """Load the only layer with two levels; words become labels if there is one per target."""
    if (kind := file_kind(path)) != "HDF5 file":
        raise SourceError(
            f"{path.name}: expected an HDF5 file of TheanoLM's, got {with_article(kind)}"
        )
    with _open_hdf5(path) as file:
        layer = _find_layer(file, path)
        with _reading(path):
            arrays = [layer[name][()] for name in _ARRAY_NAMES]
        words, classes = _read_vocabulary(file, path)
    num_targets = options.num_targets or _num_classes(words, classes)
    model = models.from_theano(*arrays, num_targets=num_targets, padding=options.padding)
    expect_used_clusters(model)
    return SourceModel(model, _labels(words, classes, model.num_targets))


def detect(path: Path) -> str | None:
    """Return a description of the file if it has this format, else None."""
    return "an HDF5 file, as TheanoLM writes" if file_kind(path) == "HDF5 file" else None


@contextmanager
def _open_hdf5(path: Path) -> Iterator[Any]:
    try:
        import h5py
    except ModuleNotFoundError:
        raise SourceError(
            f"{path.name}: expected h5py to read HDF5 with, got none: pip install '.[hdf5]'"
        ) from None
    try:
        expect_readable(path, max_expanded_bytes(path.stat().st_size))
    except Hdf5Error as error:
        raise _damaged(path, str(error)) from None
    with _reading(path):
        file = h5py.File(path, "r")
    with file:
        yield file


def _reading(path: Path) -> AbstractContextManager[None]:
    """The boundary around calls of h5py."""
    return decoding(lambda reason: _damaged(path, reason))


def _damaged(path: Path, reason: str) -> SourceError:
    return SourceError(
        f"{path.name}: expected a whole HDF5 file, got one that is damaged ({reason})"
    )


def _find_layer(file: Any, path: Path) -> Any:  # noqa: ANN401 -- h5py has no types
    with _reading(path):
        layers = file.get("layers", {})
        matching = [
            name for name in layers if all(f"{name}/{array}" in layers for array in _ARRAY_NAMES)
        ]
    if len(matching) == 1:
        return layers[matching[0]]
    actual = f"layers {', '.join(matching or layers)}" if len(layers) else "no layers"
    raise SourceError(
        f"{path.name}: expected one layer with {', '.join(_ARRAY_NAMES)} (type hsoftmax), "
        f"got {actual}"
    )


def _read_vocabulary(file: Any, path: Path) -> tuple[tuple[str, ...], Int64 | None]:  # noqa: ANN401
    with _reading(path):
        words, classes = (_read_list(file, f"vocabulary/{name}") for name in ("words", "classes"))
    labels = () if words is None else tuple(_text(word, path) for word in words)
    return labels, None if classes is None else to_int64("vocabulary/classes", classes)


def _read_list(file: Any, name: str) -> Array | None:  # noqa: ANN401
    """Return a dataset of one axis, or None if there is none."""
    dataset = file.get(name)
    if dataset is None:
        return None
    values = np.asarray(dataset[()])
    if values.ndim != 1:
        raise ValueError(f"{name}: expected a list, got shape {values.shape}")
    return values


def _text(word: object, path: Path) -> str:
    try:
        return word.decode("utf-8") if isinstance(word, bytes) else str(word)
    except UnicodeDecodeError:
        raise SourceError(
            f"{path.name}: vocabulary/words: expected UTF-8, got other bytes"
        ) from None


def _num_classes(words: tuple[str, ...], classes: Array | None) -> int | None:
    if classes is not None and len(classes):
        return int(classes.max()) + 1
    return len(words) or None


def _labels(
    words: tuple[str, ...], classes: Int64 | None, num_targets: int
) -> tuple[str, ...] | None:
    """Return the word of each target, or None unless each target has exactly one word."""
    if len(words) != num_targets:
        return None
    if classes is None:
        return words
    if sorted(classes.tolist()) != list(range(num_targets)):
        return None
    return tuple(words[word] for word in np.argsort(classes))
