"""Sources: each reads one format of trained weights and parses it once into a model."""

from .loaded import ClusterOrder, Loaded, Options
from .registry import AUTO, SOURCES, Recognised, load, recognise

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
