"""Source `theanolm`: the hierarchical softmax layer of a TheanoLM model, an HDF5 file.

The file has layers/<any>/input/W [H, C], input/b, level1/W [C, H, K], level1/b, which are Theano's
W1, b1, W2 and b2. The targets are the classes of vocabulary/classes: one for each of
vocabulary/words, unless several words share one. TheanoLM saves both; a file without them needs
the number of targets from the options. Other layers and groups are not the softmax's.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hsoftmax import models
from hsoftmax.exporter.errors import SourceError
from hsoftmax.exporter.files.hdf5_probe import Hdf5Error, expect_readable
from hsoftmax.exporter.files.input_file import max_expanded_bytes
from hsoftmax.models.arrays import Array, Int64, to_int64
from hsoftmax.models.decoder_errors import decoding

from .detection import file_kind, with_article
from .named_tensors import Harmless, expect_harmless
from .source import SourceModel, SourceOptions, expect_num_targets

_ARRAY_NAMES = ("input/W", "input/b", "level1/W", "level1/b")
_VOCABULARY_NAMES = ("words", "classes")
_HARMLESS: Harmless = {
    r"(input|level1)/[Wb]_((mean|sum)_)?(sqr_)?(gradient|velocity|delta)": "the optimizer's state",
}
_VOCABULARY_HARMLESS: Harmless = {
    r"probs": "the probability of each word in its class, which comes after the softmax",
    r"unigram_probs": "the noise distribution of training",
}


def load(path: Path, options: SourceOptions) -> SourceModel:
    """Load the only layer with two levels; words become labels if there is one per target."""
    if (kind := file_kind(path)) != "HDF5 file":
        raise SourceError(
            f"{path.name}: expected an HDF5 file of TheanoLM's, got {with_article(kind)}"
        )
    with _open_hdf5(path) as file:
        layer = _find_layer(file, path, options)
        with _reading(path):
            arrays = [layer[name][()] for name in _ARRAY_NAMES]
        words, classes = _read_vocabulary(file, path)
        _expect_harmless(path, layer, _ARRAY_NAMES, _HARMLESS)
        with _reading(path):
            vocabulary = file.get("vocabulary")
        if vocabulary is not None:
            _expect_harmless(path, vocabulary, _VOCABULARY_NAMES, _VOCABULARY_HARMLESS)
    num_targets = _num_targets(classes, path, options)
    model = models.from_theano(*arrays, num_targets=num_targets, padding=options.padding)
    _expect_used_clusters(model, path)
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


def _find_layer(file: Any, path: Path, options: SourceOptions) -> Any:  # noqa: ANN401 -- h5py has no types
    """Return the only layer with the arrays, or that of the prefix, such as `layers/output/`."""
    with _reading(path):
        layers = file.get("layers", {})
        matching = [
            name for name in layers if all(f"{name}/{array}" in layers for array in _ARRAY_NAMES)
        ]
    wanted = None if options.prefix is None else options.prefix.strip("/").removeprefix("layers/")
    chosen = [name for name in matching if wanted in {None, name}]
    if len(chosen) == 1:
        return layers[chosen[0]]
    actual = f"layers {', '.join(matching or layers)}" if len(layers) else "no layers"
    raise SourceError(
        f"{path.name}: expected one layer with {', '.join(_ARRAY_NAMES)} (type hsoftmax), "
        f"got {actual}{': choose one with --prefix' if len(matching) > 1 else ''}"
    )


def _read_vocabulary(file: Any, path: Path) -> tuple[tuple[str, ...], Int64 | None]:  # noqa: ANN401
    with _reading(path):
        words, classes = (_read_list(file, f"vocabulary/{name}") for name in ("words", "classes"))
    labels = () if words is None else tuple(map(_text, words))
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


def _text(word: object) -> str:
    """Return a word; a byte that is not UTF-8 becomes a surrogate, as in `words.decode_word`."""
    return word.decode("utf-8", "surrogateescape") if isinstance(word, bytes) else str(word)


def _expect_harmless(path: Path, group: Any, used: Sequence[str], harmless: Harmless) -> None:  # noqa: ANN401
    """Raise SourceError for a dataset in the group that is neither used nor harmless."""
    with _reading(path):
        prefix, names = f"{group.name.lstrip('/')}/", _dataset_names(group)
    unused = (f"{prefix}{name}" for name in names if name not in used)
    expect_harmless(path, unused, harmless, prefix=prefix)


def _dataset_names(group: Any) -> list[str]:  # noqa: ANN401
    """Return the paths of all datasets in a group."""
    names: list[str] = []
    group.visititems(lambda name, item: names.append(name) if hasattr(item, "dtype") else None)
    return names


def _num_targets(classes: Int64 | None, path: Path, options: SourceOptions) -> int:
    """Return the number of classes, or that of the options if the file has no classes."""
    if classes is not None and len(classes):
        num_classes = int(classes.max()) + 1
        expect_num_targets(options, path, num_classes, "as vocabulary/classes has")
        return num_classes
    if options.num_targets is None:
        raise SourceError(f"{path.name}: expected vocabulary/classes or --num-targets, got neither")
    return options.num_targets


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


def _expect_used_clusters(model: models.HierarchicalSoftmax, path: Path) -> None:
    """Raise SourceError for a cluster without targets, which TheanoLM never makes."""
    last = model.levels[-1]
    block_size = last.num_rows // last.num_blocks
    min_targets = last.num_rows - block_size + 1
    if model.num_targets < min_targets:
        raise SourceError(
            f"{path.name}: num_targets: expected {min_targets} to {last.num_rows} for "
            f"{last.num_blocks} clusters of {block_size} rows, got {model.num_targets}"
        )
