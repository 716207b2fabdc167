"""All sources by name, and detection of a file's source."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hsoftmax.exporter.choices import AUTO, SOURCE_NAMES
from hsoftmax.exporter.errors import SourceError

from . import (
    fairseq,
    fasttext,
    gensim,
    huffman,
    levels,
    pytorch,
    sparse_block_dot,
    theano,
    theanolm,
    transformer_xl,
    two_level,
)
from .detection import contained_names, file_kind, with_article
from .source import SourceModel, SourceOptions

_MAX_NAMES_SHOWN = 8  # names of arrays in a message


class SourceFormat(Protocol):
    """The functions of a source's module."""

    def load(self, path: Path, options: SourceOptions) -> SourceModel:
        """Read the file; raise a UserError that says why it cannot be read."""

    def detect(self, path: Path) -> str | None:
        """Return a description of the file if it has this format, else None.

        It reads only a part of the file. It may raise SourceError if the file has this format but
        can never become a model.
        """


SOURCES: Mapping[str, SourceFormat] = {
    "theano": theano,
    "two-level": two_level,
    "levels": levels,
    "pytorch": pytorch,
    "transformer-xl": transformer_xl,
    "fairseq": fairseq,
    "theanolm": theanolm,
    "huffman": huffman,
    "fasttext": fasttext,
    "gensim": gensim,
    "sparse-block-dot": sparse_block_dot,
}


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
    if source == AUTO:
        source = detect_source(path).source
    if source not in SOURCES:
        raise SourceError(f"format: expected one of {', '.join(SOURCE_NAMES)}, got {source}")
    return SOURCES[source].load(path, options)


def detect_source(path: Path) -> DetectedSource:
    """Return the source of a file, detected from its content.

    Raises:
        SourceError: no source or several can read it; the text names the sources and the content.
    """
    detected = [
        DetectedSource(name, description)
        for name, source in SOURCES.items()
        if (description := source.detect(path)) is not None
    ]
    if len(detected) == 1:
        return detected[0]
    if detected:
        several = "; ".join(f"{one.source}: {one.description}" for one in detected)
        raise SourceError(f"{path.name}: expected one format, got {several}: say which with --from")
    raise SourceError(
        f"{path.name}: expected weights of one of {', '.join(SOURCE_NAMES)}, "
        f"got {_describe_content(path)}"
    )


def _describe_content(path: Path) -> str:
    if path.is_dir():
        return "a folder without any"
    names = sorted(contained_names(path))
    if file_kind(path) not in {"npz", "safetensors"} or not names:
        return with_article(file_kind(path))
    more = f" and {len(names) - _MAX_NAMES_SHOWN} more" if len(names) > _MAX_NAMES_SHOWN else ""
    return f"{file_kind(path)} with {', '.join(names[:_MAX_NAMES_SHOWN])}{more}"
