"""The formats by name, and what each of them may be told on the command line."""

from collections.abc import Callable, Mapping
from pathlib import Path

from exporter.errors import SourceError

from . import theano
from .loaded import Loaded, Options

Load = Callable[[Path, Options], Loaded]

SOURCES: Mapping[str, Load] = {"theano": theano.load}


def load(path: Path, source: str, options: Options) -> Loaded:
    """Read `path` as the named format.

    Raises:
        SourceError: an unknown format, or a file that is not of it.
        models.WeightsError: arrays that do not make a model.
    """
    if source not in SOURCES:
        raise SourceError(f"format: expected one of {', '.join(SOURCES)}, got {source}")
    return SOURCES[source](path, options)
