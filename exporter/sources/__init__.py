"""Sources: each reads one format of trained weights and parses it once into a model."""

from .registry import AUTO, SOURCES, Recognised, load, recognise
from .source import ClusterOrder, Loaded, Options

__all__ = [
    "AUTO",
    "SOURCES",
    "ClusterOrder",
    "Loaded",
    "Options",
    "Recognised",
    "load",
    "recognise",
]
