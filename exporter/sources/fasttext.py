"""Source `fasttext`: models trained with `-loss hs`, in `.bin` and quantised `.ftz` files.

NumPy alone reads the layout that fastText's `saveModel` writes: magic, version, arguments,
dictionary, input matrix, output matrix. The dictionary and the input matrix become the bundle's
featurizer, see `fasttext_text`, or are skipped. The Huffman tree is not in the file and is rebuilt,
see `fasttext_tree`.

Targets are the labels of a supervised model, else the words, in file order. P(right) = sigmoid(z).
"""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hsoftmax.exporter.errors import SourceError
from hsoftmax.featurizers import Featurizer
from hsoftmax.featurizers.matrix import Matrix
from hsoftmax.models import huffman_softmax
from hsoftmax.models.arrays import Float32, Int64
from hsoftmax.models.tree_paths import Int32

from .binary_file import BinaryFile, open_binary
from .fasttext_matrix import (
    MatrixShape,
    expect_columns,
    map_matrix,
    read_matrix,
    skip_matrix,
)
from .fasttext_text import TextParts, build_featurizer
from .fasttext_tree import huffman_paths
from .source import SourceModel, SourceOptions, expect_num_targets
from .words import decode_word

_MAGIC = 793_712_314
_VERSIONS = (11, 12)
_VERSION_WITHOUT_NGRAMS = 11  # a supervised model of it has no n-grams of characters
_LOSSES = {1: "hs", 2: "ns", 3: "softmax", 4: "ova"}
_MODELS = {1: "cbow", 2: "skipgram", 3: "supervised"}
_FORMAT_NAME = "fastText model"
_LABEL = "__label__"
_ARGUMENTS = (
    "dim", "ws", "epoch", "minCount", "neg", "wordNgrams", "loss", "model", "bucket", "minn",
    "maxn", "lrUpdateRate",
)  # fmt: skip
_MIN_ENTRY_BYTES = 10  # an empty word, its count and type
_COUNT_AND_TYPE = struct.Struct("<qB")
_WORD, _IS_LABEL = 0, 1


@dataclass(frozen=True)
class FastTextHeader:
    """The part of the file before the dictionary."""

    version: int
    arguments: dict[str, int]

    @property
    def loss(self) -> str:
        number = self.arguments["loss"]
        return _LOSSES.get(number, f"number {number}")

    @property
    def model(self) -> str:
        number = self.arguments["model"]
        return _MODELS.get(number, f"number {number}")


@dataclass(frozen=True)
class Dictionary:
    """The dictionary, in file order.

    Attributes:
        entries: words and labels
        num_words: the words among them
        names, counts: of the targets, which are the labels, or the words
        pruned: (bucket, new number) of a pruned model, else None
    """

    entries: tuple[bytes, ...]
    num_words: int
    names: tuple[str, ...]
    counts: Int64
    pruned: Int32 | None


def load(path: Path, options: SourceOptions) -> SourceModel:
    """Load the model's hierarchical softmax over its labels, or over its words if unsupervised."""
    with open_binary(path, _FORMAT_NAME) as file:
        header = _read_header(file)
        _expect_supported(file, header)
        dictionary = _read_dictionary(file, labels=header.model == "supervised")
        input_matrix, quantised = _read_input(file, header.arguments["dim"], text=options.text)
        output = _read_output(file, header.arguments["dim"], len(dictionary.names), quantised)
    expect_num_targets(options, path, len(dictionary.names), "as the file has")
    try:
        path_and_sign = huffman_paths(dictionary.counts, file.num_bytes)
        featurizer = _featurizer(header, dictionary, input_matrix)
    except SourceError as error:
        raise SourceError(f"{path.name}: {error}") from None
    model = huffman_softmax.build(output, *path_and_sign, compat=options.compat)
    return SourceModel(model, dictionary.names, featurizer=featurizer)


def _featurizer(
    header: FastTextHeader, dictionary: Dictionary, matrix: Matrix | None
) -> Featurizer | None:
    if matrix is None:
        return None
    arguments = header.arguments
    if header.version == _VERSION_WITHOUT_NGRAMS and header.model == "supervised":
        arguments = {**arguments, "maxn": 0}
    return build_featurizer(
        TextParts(
            model=header.model,
            entries=dictionary.entries,
            num_words=dictionary.num_words,
            arguments=arguments,
            pruned=dictionary.pruned,
            matrix=matrix,
        )
    )


def detect(path: Path) -> str | None:
    """Return a description of a fastText model, or None; also for models that `load` refuses."""
    try:
        with open_binary(path, _FORMAT_NAME) as file:
            header = _read_header(file)
    except SourceError:
        return None
    return f"fastText {header.model} model, version {header.version}, loss {header.loss}"


def _read_header(file: BinaryFile) -> FastTextHeader:
    magic = file.number("magic", np.int32)
    if magic != _MAGIC:
        raise SourceError(f"{file.name}: magic: expected {_MAGIC} of fastText, got {magic}")
    version = file.number("version", np.int32)
    values = file.array("arguments", np.int32, len(_ARGUMENTS)).tolist()
    file.skip("t", 1, 8)
    return FastTextHeader(version, dict(zip(_ARGUMENTS, values, strict=True)))


def _expect_supported(file: BinaryFile, header: FastTextHeader) -> None:
    if header.version not in _VERSIONS:
        raise SourceError(
            f"{file.name}: version: expected {' or '.join(map(str, _VERSIONS))}, "
            f"got {header.version}"
        )
    if header.loss != "hs":
        raise SourceError(
            f"{file.name}: loss: expected hs (hierarchical softmax), got {header.loss}, "
            "which scores every target in full"
        )
    if header.arguments["model"] not in _MODELS:
        raise SourceError(
            f"{file.name}: model: expected {', '.join(_MODELS.values())}, got {header.model}"
        )


def _read_dictionary(file: BinaryFile, *, labels: bool) -> Dictionary:
    size, words, num_labels = (
        file.size(f"dictionary: {field}", np.int32) for field in ("size", "words", "labels")
    )
    file.skip("dictionary: tokens", 1, 8)
    pruned = file.number("dictionary: pruned", np.int64)
    if size != words + num_labels or size * _MIN_ENTRY_BYTES > file.remaining:
        raise file.damaged(
            f"dictionary: expected {words} words and {num_labels} labels, got {size} entries in "
            f"{file.remaining} bytes"
        )
    all_entries = [_read_entry(file) for _ in range(size)]
    pairs = file.array("dictionary: pruned", np.int32, 2 * max(pruned, 0)).reshape(-1, 2)
    wanted_kind = _IS_LABEL if labels else _WORD
    entries = [(name, count) for name, count, kind in all_entries if kind == wanted_kind]
    if len(entries) != (num_labels if labels else words) or not entries:
        field = "labels" if labels else "words"
        expected = max(1, num_labels if labels else words)
        raise file.damaged(f"dictionary: expected {expected} {field}, got {len(entries)}")
    if any(kind != _WORD for _, _, kind in all_entries[:words]):
        raise file.damaged("dictionary: expected words before labels, got a label among them")
    return Dictionary(
        entries=tuple(name for name, _, _ in all_entries),
        num_words=words,
        names=tuple(_decode_name(name) for name, _ in entries),
        counts=np.array([count for _, count in entries], dtype=np.int64),
        pruned=None if pruned < 0 else pairs,
    )


def _read_entry(file: BinaryFile) -> tuple[bytes, int, int]:
    name = file.text("dictionary: entry")
    count, kind = file.record("dictionary: entry", _COUNT_AND_TYPE)
    return name, count, kind


def _decode_name(name: bytes) -> str:
    """Return a label without its prefix."""
    return decode_word(name).removeprefix(_LABEL)


def _read_input(file: BinaryFile, dim: int, *, text: bool) -> tuple[Matrix | None, bool]:
    """Return (the input matrix or None without `text`, True if it is quantised)."""
    quantised = file.flag("input: quantised")
    if text:
        return map_matrix(file, "input", dim, quantised=quantised), quantised
    expect_columns(file, "input", skip_matrix(file, "input", quantised=quantised), dim)
    return None, quantised


def _read_output(file: BinaryFile, dim: int, targets: int, quantised: bool) -> Float32:
    qout = file.flag("output: quantised")
    output = read_matrix(file, "output", MatrixShape(targets, dim), quantised=quantised and qout)
    if file.remaining:
        raise file.damaged(f"output: expected the end of the file, got {file.remaining} bytes more")
    return output
