"""All sources by name, and detection of a file's source."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from hsoftmax.exporter.choices import AUTO, SOURCE_NAMES
from hsoftmax.exporter.errors import SourceError
from hsoftmax.exporter.files.shard_index import shard_files
from hsoftmax.models import UserError

from . import (
    chainer,
    fairseq,
    fasttext,
    gensim,
    huffman,
    levels,
    paddle,
    pytorch,
    sparse_block_dot,
    theano,
    theanolm,
    transformer_xl,
    tree,
    two_level,
)
from .detection import contained_names, file_kind, with_article
from .naming import hint, own_names, show_names
from .source import SourceModel, SourceOptions
from .weights_files import weights_file


class SourceFormat(Protocol):
    """The function that the module of every source has."""

    def load(self, path: Path, options: SourceOptions) -> SourceModel:
        """Read the file; raise a UserError that says why it cannot be read."""


class NamedFormat(SourceFormat, Protocol):
    """A source of named tensors, which are in files of several kinds."""

    def recognise(self, names: frozenset[str]) -> str | None:
        """Return a description of a file with these names if it has this format, else None."""


class FileFormat(SourceFormat, Protocol):
    """A source with a kind of file of its own, in which `--prefix` and `--names` find nothing."""

    def detect(self, path: Path) -> str | None:
        """Return a description of the file if it has this format, else None.

        It reads only a part of the file. It may raise SourceError if the file has this format but
        can never become a model.
        """


_NAMED_FORMATS: Mapping[str, NamedFormat] = {
    "theano": theano,
    "two-level": two_level,
    "levels": levels,
    "pytorch": pytorch,
    "transformer-xl": transformer_xl,
    "fairseq": fairseq,
    "huffman": huffman,
    "chainer": chainer,
    "paddle": paddle,
    "tree": tree,
    "sparse-block-dot": sparse_block_dot,
}
_FILE_FORMATS: Mapping[str, FileFormat] = {
    "theanolm": theanolm,
    "fasttext": fasttext,
    "gensim": gensim,
}
_FORMATS: Mapping[str, SourceFormat] = {**_NAMED_FORMATS, **_FILE_FORMATS}
SOURCES: Mapping[str, SourceFormat] = {name: _FORMATS[name] for name in SOURCE_NAMES}
_WITHOUT_NAMES = {"fasttext", "gensim"}
_DESCRIBED_KINDS = {"npz", "safetensors", "index of shards", "pickle"}  # by the names in them


@dataclass(frozen=True)
class DetectedSource:
    """The source that can read a file, and a description of the file's content."""

    source: str
    description: str


def load(path: Path, source: str, options: SourceOptions) -> SourceModel:
    """Read `path` with the named source, or with the detected source for `auto`.

    Raises:
        SourceError: an unknown source, or a file that is not of its format.
        models.WeightsError: arrays that do not make a model.
    """
    file = weights_file(path)
    if source == AUTO:
        source = detect_source(file, options).source
    if source not in SOURCES:
        raise SourceError(f"format: expected one of {', '.join(SOURCE_NAMES)}, got {source}")
    if source in _WITHOUT_NAMES and (options.names or options.prefix is not None):
        raise SourceError(f"{file.name}: expected no --prefix and no --names for {source}, got one")
    try:
        model = SOURCES[source].load(file, options)
    except UserError as error:
        raise _with_right_source(error, file, source, options) from None
    shards = shard_files(file) if file_kind(file) == "index of shards" else ()
    return replace(model, extra_files=(*model.extra_files, *shards))


def _with_right_source(
    error: UserError, file: Path, source: str, options: SourceOptions
) -> UserError:
    """Return the error, with the source that the content speaks for if it is another one."""
    try:
        detected = detect_source(file, options)
    except UserError:
        return error
    if detected.source == source:
        return error
    return SourceError(f"{error}: it has {detected.description}: say --from {detected.source}")


def detect_source(path: Path, options: SourceOptions | None = None) -> DetectedSource:
    """Return the source of a file, detected from its content.

    Raises:
        SourceError: no source or several can read it; the text names the sources and the content.
    """
    file = weights_file(path)
    detected = [
        DetectedSource(name, description)
        for name, source in _FILE_FORMATS.items()
        if (description := source.detect(file)) is not None
    ]
    names = frozenset[str]()
    if not detected:
        names = contained_names(file)
        detected = _recognise(own_names(names, options or SourceOptions()))
    if len(detected) == 1:
        return detected[0]
    if detected:
        several = "; ".join(f"{one.source}: {one.description}" for one in detected)
        raise SourceError(f"{file.name}: expected one format, got {several}: say which with --from")
    raise SourceError(
        f"{file.name}: expected weights of one of {', '.join(SOURCE_NAMES)}, "
        f"got {_describe_content(file, names)}"
    )


def _recognise(names: frozenset[str]) -> list[DetectedSource]:
    return [
        DetectedSource(name, description)
        for name, source in _NAMED_FORMATS.items()
        if (description := source.recognise(names)) is not None
    ]


def _describe_content(file: Path, names: frozenset[str]) -> str:
    kind = file_kind(file)
    if kind not in _DESCRIBED_KINDS or not names:
        return with_article(kind)
    return f"{kind} with {show_names(names)}{hint(names, lambda own: bool(_recognise(own)))}"
