"""Sources: each reads one format of trained weights and parses it once into a model."""

from .registry import SOURCES, Recognised, load, recognise
from .source import Loaded, Options

__all__ = [
    "SOURCES",
    "Loaded",
    "Options",
    "Recognised",
    "load",
    "recognise",
]
