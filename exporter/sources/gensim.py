"""Source `gensim`: Word2Vec, Doc2Vec and FastText models saved by gensim after training with hs=1.

A `.model` file is a pickle, perhaps with large arrays in `.npy` files next to it. A `.model.gz` is
one that gensim compressed, with large arrays in `.npz` files. `pickle_reader` reads both as data:
no code of the file runs, and gensim need not be installed.

Codes and points are read as stored and never rebuilt, because gensim breaks ties between equal
counts in another way than word2vec and fastText. P(code 0) = sigmoid(z). Targets are the words, in
gensim's own order; `words` says how words that are not text become labels.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hsoftmax.exporter.errors import SourceError
from hsoftmax.exporter.files.input_file import expect_justified
from hsoftmax.exporter.files.npy_files import map_npy, read_npz
from hsoftmax.models import huffman_softmax
from hsoftmax.models.arrays import Array

from .gensim_files import extra_file_path
from .gensim_text import GensimText, read_text
from .named_tensors import Harmless, expect_harmless
from .pickle_machine import PickledCall, is_plain_key
from .pickle_reader import first_global, read_pickle
from .pickled_arrays import describe, is_array, numbers, objects
from .source import SourceModel, SourceOptions, expect_num_targets
from .words import word_labels, word_text

Attributes = Mapping[str, Any]

_BYTES_PER_STEP = 16  # of a node and a sign as int64
_HARMLESS: Harmless = {
    r"(wv\.|trainables\.)?(vectors|syn0)\w*": "input vectors, which the featurizer reads",
    r"wv\.(norms|buckets_word)": "a cache that belongs to the input vectors",
    r"wv\.(index_to_key|index2word)|index2word": "the words, which become labels",
    r"(trainables\.)?syn1neg": "the output layer of negative sampling, which has no tree",
    r"(vocabulary\.)?cum_table|table|neg_labels": "the noise distribution of negative sampling",
}


@dataclass(frozen=True)
class CodedWords:
    """The words in order, and for each the branches and nodes from the root."""

    words: Sequence[object]
    codes: Sequence[object]
    points: Sequence[object]


def load(path: Path, options: SourceOptions) -> SourceModel:
    """Load the model's hierarchical softmax over its words."""
    model = _attributes(path, read_pickle(path))
    file_bytes = path.stat().st_size
    try:
        coded = _read_words(model)
        _expect_justified_words(coded.words, file_bytes)
        syn1, extra_files, syn1_name = _read_syn1(path, model)
        nodes, sign = _paths(coded, file_bytes)
    except SourceError as error:
        raise SourceError(f"{path.name}: {error}") from None
    expect_harmless(path, _array_names(model) - {syn1_name}, _HARMLESS)
    expect_num_targets(options, path, len(coded.words), "as the file has")
    softmax = huffman_softmax.build(syn1, nodes, sign, compat=options.compat)
    labels, labels_error = _labels(path, coded.words)
    text = GensimText(None)
    if options.text:
        try:
            text = read_text(path, model, labels, _read_extra_file)
        except SourceError as error:
            raise SourceError(f"{path.name}: {error}") from None
    return SourceModel(
        softmax, labels, (*extra_files, *text.extra_files), labels_error,
        text.featurizer, text.reason,
    )  # fmt: skip


def _labels(path: Path, words: Sequence[object]) -> tuple[tuple[str, ...] | None, str]:
    """Return the labels, or None and the reason why the words have none."""
    try:
        return word_labels(words), ""
    except SourceError as error:
        return None, f"{path.name}: {error}"


def detect(path: Path) -> str | None:
    """Return a description of a pickled gensim model, or None for other files."""
    root_global = None if path.is_dir() else first_global(path)
    if root_global is None or not root_global.module.startswith("gensim.models."):
        return None
    return f"gensim {root_global.name} model"


def _attributes(path: Path, value: object) -> Attributes:
    """Return the attributes of a pickled model that was trained with hs=1."""
    state = value.state if isinstance(value, PickledCall) else None
    if not isinstance(state, dict):
        raise SourceError(f"{path.name}: expected a gensim model, got {describe(value)}")
    if "hs" not in state:
        raise SourceError(
            f"{path.name}: expected a gensim Word2Vec, Doc2Vec or FastText model saved whole, "
            f"got {describe(value)}, which has no hs"
        )
    if not state["hs"]:
        raise SourceError(
            f"{path.name}: loss: expected hs=1 (hierarchical softmax), got hs=0 with "
            f"negative={_show_integer(state.get('negative'))}, which has no tree"
        )
    return state


def _parts(model: Attributes, *names: str) -> list[tuple[str, Attributes]]:
    """Return the attributes of the model and of its parts; gensim versions use different parts."""
    states = [
        (name, part.state) for name in names if isinstance(part := model.get(name), PickledCall)
    ]
    return [
        ("", model),
        *((f"{name}.", state) for name, state in states if isinstance(state, dict)),
    ]


def _array_names(model: Attributes) -> set[str]:
    """Return the names of all arrays in the model and in the parts that its training reads."""
    return {
        f"{prefix}{name}"
        for prefix, part in _parts(model, "trainables", "wv", "vocabulary")
        for name in (
            *(name for name, value in part.items() if is_array(value)),
            *_names(part.get("__numpys")),
            *_names(part.get("__scipys")),
        )
        if isinstance(name, str)
    }


def _names(value: object) -> Collection[object]:
    """Return the names of arrays in extra files; a damaged pickle may have anything in place."""
    return value if isinstance(value, list | tuple | set | frozenset) else ()


def _read_syn1(path: Path, model: Attributes) -> tuple[Array, tuple[Path, ...], str]:
    """Return the weights, the extra file that holds them, if any, and their name."""
    for prefix, part in _parts(model, "trainables"):
        if part.get("syn1") is not None:
            return numbers("syn1", part["syn1"]), (), f"{prefix}syn1"
        if "syn1" in _names(part.get("__numpys")):
            extra_file = extra_file_path(path, f"{prefix}syn1")
            return _read_extra_file(extra_file), (extra_file,), f"{prefix}syn1"
    raise SourceError("expected the array syn1, got none")


def _read_extra_file(extra_file: Path) -> Array:
    """Read a large array that gensim stored in a file next to the model."""
    if not extra_file.exists():
        raise SourceError(f"expected {extra_file.name} beside it, got none")
    try:
        if extra_file.suffix == ".npz":
            arrays = dict(read_npz(extra_file, "val".__eq__))
            if "val" not in arrays:
                raise SourceError("expected an array val, got none")
            return arrays["val"]
        return map_npy(extra_file)
    except SourceError as error:
        raise SourceError(
            f"expected {extra_file.name} beside it, got one that is damaged: {error}"
        ) from None


def _read_words(model: Attributes) -> CodedWords:
    for _, part in _parts(model, "wv"):
        expandos, vocabulary = part.get("expandos"), part.get("vocab")
        if isinstance(expandos, dict) and "code" in expandos:
            return _words_by_index(part, expandos)
        if isinstance(vocabulary, dict) and vocabulary:
            return _words_by_entry(part, vocabulary)
    raise SourceError("expected words with codes and points, got none")


def _words_by_index(vectors: Attributes, expandos: Attributes) -> CodedWords:
    """Read the words as gensim 4 and later store them: arrays over the words."""
    words = objects("index_to_key", vectors.get("index_to_key"))
    columns = [objects(name, expandos.get(name)) for name in ("code", "point")]
    for name, values in zip(("code", "point"), columns, strict=True):
        if len(values) < len(words):
            raise SourceError(f"{name}: expected {len(words)}, one a word, got {len(values)}")
    return CodedWords(words, *(values[: len(words)] for values in columns))


def _words_by_entry(vectors: Attributes, vocabulary: Mapping[Any, Any]) -> CodedWords:
    """Read the words as gensim before 4 stores them: one object per word."""
    order = objects("index2word", vectors.get("index2word"))
    entries = [_word_entry(word, vocabulary) for word in order]
    return CodedWords(
        order, [entry["code"] for entry in entries], [entry["point"] for entry in entries]
    )


def _word_entry(word: object, vocabulary: Mapping[Any, Any]) -> Attributes:
    entry = getattr(vocabulary.get(word) if is_plain_key(word) else None, "state", None)
    if not isinstance(entry, dict) or not {"code", "point"} <= entry.keys():
        raise SourceError(f"word {word_text(word)!r}: expected a code and a point, got none")
    return entry


def _show_integer(value: object) -> str:
    """Return an integer as text; other data of a pickle may be endless to print."""
    return str(value) if type(value) is int and abs(value) < 2**63 else "something else"


def _expect_justified_words(words: Sequence[object], file_bytes: int) -> None:
    """Raise SourceError if the file names one long word so often that copies fill the memory."""
    num_chars = sum(len(word) for word in words if isinstance(word, str | bytes))
    expect_justified("words", num_chars, file_bytes)


def _steps(name: str, values: Sequence[object], file_bytes: int) -> list[Array]:
    """Return the array of each word, of which the file may name one long array many times."""
    arrays, total = [], 0
    for value in values:
        array = numbers(name, value)
        if array.ndim != 1:
            raise SourceError(f"{name}: expected a list for each word, got {list(array.shape)}")
        total += array.nbytes
        expect_justified(name, total, file_bytes)
        arrays.append(array)
    return arrays


def _paths(coded: CodedWords, file_bytes: int) -> tuple[Array, Array]:
    """Return padded nodes and signs; code 0 is the branch of sign +1."""
    codes = _steps("code", coded.codes, file_bytes)
    points = _steps("point", coded.points, file_bytes)
    lengths = np.array([len(code) for code in codes])
    if [len(point) for point in points] != lengths.tolist():
        raise SourceError("point: expected as many as code has, got others")
    depth = int(lengths.max(initial=0))
    expect_justified("code", _BYTES_PER_STEP * depth * len(codes), file_bytes)
    is_step = np.arange(depth) < lengths[:, None]
    nodes, sign = np.zeros((2, len(codes), depth), dtype=np.int64)
    if depth:
        nodes[is_step] = np.concatenate(points)
        sign[is_step] = 1 - 2 * np.concatenate(codes).astype(np.int64)
    return nodes, sign
