"""Source `fasttext`: models trained with `-loss hs`, in `.bin` and quantised `.ftz` files.

NumPy alone reads the layout that fastText's `saveModel` writes: magic, version, arguments,
dictionary, input matrix, output matrix. The input matrix is skipped, because clients compute the
hidden vectors. The Huffman tree is not in the file and is rebuilt, see `fasttext_tree`.

Targets are the labels of a supervised model, else the words, in file order. P(right) = sigmoid(z).
"""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hsoftmax.exporter.errors import SourceError
from hsoftmax.models import huffman_softmax
from hsoftmax.models.arrays import Float32, Int64

from .binary_file import BinaryFile, open_binary
from .fasttext_matrix import MatrixShape, read_matrix, skip_matrix
from .fasttext_tree import huffman_paths
from .source import SourceModel, SourceOptions, expect_num_targets
from .words import decode_word

_MAGIC = 793_712_314
_VERSIONS = (11, 12)
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
class DictionaryEntries:
    """Words or labels of the dictionary, in file order."""

    names: tuple[str, ...]
    counts: Int64


def load(path: Path, options: SourceOptions) -> SourceModel:
    """Load the model's hierarchical softmax over its labels, or over its words if unsupervised."""
    with open_binary(path, _FORMAT_NAME) as file:
        header = _read_header(file)
        _expect_supported(file, header)
        entries = _read_dictionary(file, labels=header.model == "supervised")
        output = _read_output(file, header.arguments["dim"], len(entries.names))
    expect_num_targets(options, path, len(entries.names), "as the file has")
    try:
        path_and_sign = huffman_paths(entries.counts, file.num_bytes)
    except SourceError as error:
        raise SourceError(f"{path.name}: {error}") from None
    model = huffman_softmax.build(output, *path_and_sign, compat=options.compat)
    return SourceModel(model, entries.names)


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


def _read_dictionary(file: BinaryFile, *, labels: bool) -> DictionaryEntries:
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
    file.skip("dictionary: pruned", max(pruned, 0), 8)
    wanted_kind = _IS_LABEL if labels else _WORD
    entries = [(name, count) for name, count, kind in all_entries if kind == wanted_kind]
    if len(entries) != (num_labels if labels else words) or not entries:
        field = "labels" if labels else "words"
        expected = max(1, num_labels if labels else words)
        raise file.damaged(f"dictionary: expected {expected} {field}, got {len(entries)}")
    names = tuple(_decode_name(name) for name, _ in entries)
    return DictionaryEntries(names, np.array([count for _, count in entries], dtype=np.int64))


def _read_entry(file: BinaryFile) -> tuple[bytes, int, int]:
    name = file.text("dictionary: entry")
    count, kind = file.record("dictionary: entry", _COUNT_AND_TYPE)
    return name, count, kind


def _decode_name(name: bytes) -> str:
    """Return a label without its prefix."""
    return decode_word(name).removeprefix(_LABEL)


def _read_output(file: BinaryFile, dim: int, targets: int) -> Float32:
    quantised = file.flag("input: quantised")
    columns = skip_matrix(file, "input", quantised=quantised).columns
    if columns != dim:
        raise file.damaged(f"input: expected {dim} columns, got {columns}")
    qout = file.flag("output: quantised")
    output = read_matrix(file, "output", MatrixShape(targets, dim), quantised=quantised and qout)
    if file.remaining:
        raise file.damaged(f"output: expected the end of the file, got {file.remaining} bytes more")
    return output
