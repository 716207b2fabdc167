"""Source `gensim`: Word2Vec, Doc2Vec and FastText models saved by gensim after training with hs=1.

A `.model` file is a pickle, perhaps with large arrays in `.npy` files beside it. It is read as
inert data, see `inert_pickle`: no code of the file's runs, and gensim need not be installed.

Codes and points are taken as they were stored, never rebuilt: gensim breaks ties between equal
counts otherwise than word2vec and fastText do. P(code 0) = sigmoid(z). Targets are the words, in
gensim's own order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hsoftmax.exporter.errors import SourceError
from hsoftmax.models import huffman_softmax
from hsoftmax.models.arrays import Array

from .pickle_reader import ByteString, Made, first_name, read_inert
from .pickled_arrays import described, numbers, objects
from .source import Loaded, Options, expect_num_targets

Attributes = Mapping[str, Any]


@dataclass(frozen=True)
class Coded:
    """The words in order, and the branches and nodes from the root to each."""

    words: tuple[str, ...]
    codes: Sequence[object]
    points: Sequence[object]


def load(path: Path, options: Options) -> Loaded:
    """The model's hierarchical softmax over its words."""
    model = _attributes(path, read_inert(path))
    try:
        coded = _coded(model)
        syn1, beside = _syn1(path, model)
        nodes, sign = _paths(coded)
    except SourceError as error:
        raise SourceError(f"{path.name}: {error}") from None
    expect_num_targets(options, path, len(coded.words), "as the file has")
    made = huffman_softmax.build(syn1, nodes, sign, compat=options.compat)
    return Loaded(made, coded.words, beside)


def recognises(path: Path) -> str | None:
    """A pickle whose object is one of gensim's models."""
    name = None if path.is_dir() else first_name(path)
    if name is None or not name.module.startswith("gensim.models."):
        return None
    return f"gensim {name.name} model"


def _attributes(path: Path, value: object) -> Attributes:
    """The attributes of a pickled model that was trained with hs=1."""
    state = value.state if isinstance(value, Made) else None
    if not isinstance(state, dict):
        raise SourceError(f"{path.name}: expected a gensim model, got {described(value)}")
    if "hs" not in state:
        raise SourceError(
            f"{path.name}: expected a gensim Word2Vec, Doc2Vec or FastText model saved whole, "
            f"got {described(value)}, which has no hs"
        )
    if not state["hs"]:
        raise SourceError(
            f"{path.name}: loss: expected hs=1 (hierarchical softmax), got hs=0 with "
            f"negative={state.get('negative')}, which has no tree"
        )
    return state


def _parts(model: Attributes, *names: str) -> list[tuple[str, Attributes]]:
    """The model itself, and those of its parts that hold what older or newer versions moved."""
    inner = [(name, part.state) for name in names if isinstance(part := model.get(name), Made)]
    return [("", model), *((f"{name}.", state) for name, state in inner if isinstance(state, dict))]


def _syn1(path: Path, model: Attributes) -> tuple[Array, tuple[Path, ...]]:
    """The weights, and the file beside the model's that they were in, if they were."""
    for prefix, part in _parts(model, "trainables"):
        if part.get("syn1") is not None:
            return numbers("syn1", part["syn1"]), ()
        if "syn1" in (part.get("__numpys") or ()):
            beside = path.with_name(f"{path.name}.{prefix}syn1.npy")
            return _read_beside(beside), (beside,)
    raise SourceError("expected the array syn1, got none")


def _read_beside(beside: Path) -> Array:
    """A large array that gensim put into a file beside the model's."""
    try:
        loaded: Array = np.load(beside, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        why = "none" if isinstance(error, FileNotFoundError) else "one that is damaged"
        raise SourceError(f"expected {beside.name} beside it, got {why}") from None
    return loaded


def _coded(model: Attributes) -> Coded:
    for _, part in _parts(model, "wv"):
        expandos, vocabulary = part.get("expandos"), part.get("vocab")
        if isinstance(expandos, dict) and "code" in expandos:
            return _coded_by_index(part, expandos)
        if isinstance(vocabulary, dict) and vocabulary:
            return _coded_by_word(part, vocabulary)
    raise SourceError("expected words with codes and points, got none")


def _coded_by_index(vectors: Attributes, expandos: Attributes) -> Coded:
    """As since gensim 4: arrays over the words."""
    words = tuple(_text(word) for word in objects("index_to_key", vectors.get("index_to_key")))
    found = [objects(name, expandos.get(name)) for name in ("code", "point")]
    for name, values in zip(("code", "point"), found, strict=True):
        if len(values) < len(words):
            raise SourceError(f"{name}: expected {len(words)}, one a word, got {len(values)}")
    return Coded(words, *(values[: len(words)] for values in found))


def _coded_by_word(vectors: Attributes, vocabulary: Mapping[Any, Any]) -> Coded:
    """As before gensim 4: an object for each word."""
    order = objects("index2word", vectors.get("index2word"))
    entries = [_entry(word, vocabulary) for word in order]
    return Coded(
        tuple(_text(word) for word in order),
        [entry["code"] for entry in entries],
        [entry["point"] for entry in entries],
    )


def _entry(word: object, vocabulary: Mapping[Any, Any]) -> Attributes:
    entry = getattr(vocabulary.get(word), "state", None)
    if not isinstance(entry, dict) or not {"code", "point"} <= entry.keys():
        raise SourceError(f"word {_text(word)!r}: expected a code and a point, got none")
    return entry


def _text(word: object) -> str:
    if isinstance(word, ByteString):
        return word.content.decode("utf-8", errors="backslashreplace")
    if not isinstance(word, str):
        raise SourceError(f"words: expected text, got {described(word)}")
    return word


def _paths(coded: Coded) -> tuple[Array, Array]:
    """Padded nodes and signs: code 0 is the branch of sign +1."""
    codes = [numbers("code", code) for code in coded.codes]
    points = [numbers("point", point) for point in coded.points]
    lengths = np.array([len(code) for code in codes])
    if [len(point) for point in points] != lengths.tolist():
        raise SourceError("point: expected as many as code has, got others")
    depth = int(lengths.max(initial=0))
    taken = np.arange(depth) < lengths[:, None]
    nodes, sign = np.zeros((2, len(codes), depth), dtype=np.int64)
    if depth:
        nodes[taken] = np.concatenate(points)
        sign[taken] = 1 - 2 * np.concatenate(codes).astype(np.int64)
    return nodes, sign
