"""The formats by name, and how a file is told to be of one of them."""

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
from .detection import article, kind, names
from .source import Loaded, Options

_SHOWN = 8  # names of arrays in a message


class Source(Protocol):
    """What the module of a format has."""

    def load(self, path: Path, options: Options) -> Loaded:
        """Read the file, or raise a UserError that says what is wrong with it."""

    def recognises(self, path: Path) -> str | None:
        """What the file is, where it is of this format; told from its bytes, without reading all.

        May raise a SourceError for a file that is of the format but can never be a model of ours.
        """


SOURCES: Mapping[str, Source] = {
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
class Recognised:
    """The format that a file was found to be of, and what in it says so."""

    source: str
    saw: str


def load(path: Path, source: str, options: Options) -> Loaded:
    """Read `path` as the named format, or as the one that it is recognised to be of.

    Raises:
        SourceError: an unknown format, or a file that is not of it.
        models.WeightsError: arrays that do not make a model.
    """
    if source == AUTO:
        source = recognise(path).source
    if source not in SOURCES:
        raise SourceError(f"format: expected one of {', '.join(SOURCE_NAMES)}, got {source}")
    return SOURCES[source].load(path, options)


def recognise(path: Path) -> Recognised:
    """The format of a file, by its content.

    Raises:
        SourceError: no format or several fit; the line names what is supported and what was seen.
    """
    found = [
        Recognised(name, saw)
        for name, source in SOURCES.items()
        if (saw := source.recognises(path)) is not None
    ]
    if len(found) == 1:
        return found[0]
    if found:
        several = "; ".join(f"{one.source}: {one.saw}" for one in found)
        raise SourceError(f"{path.name}: expected one format, got {several}: say which with --from")
    known = ", ".join(SOURCE_NAMES)
    raise SourceError(f"{path.name}: expected weights of one of {known}, got {_description(path)}")


def _description(path: Path) -> str:
    if path.is_dir():
        return "a folder without any"
    seen = sorted(names(path))
    if kind(path) not in {"npz", "safetensors"} or not seen:
        return article(kind(path))
    more = f" and {len(seen) - _SHOWN} more" if len(seen) > _SHOWN else ""
    return f"{kind(path)} with {', '.join(seen[:_SHOWN])}{more}"
