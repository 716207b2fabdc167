"""Readers of trained weights: each source reads one format and builds a model from it."""

from .registry import AUTO, SOURCES, DetectedSource, detect_source, load
from .source import ClusterOrder, SourceModel, SourceOptions

__all__ = [
    "AUTO",
    "SOURCES",
    "ClusterOrder",
    "DetectedSource",
    "SourceModel",
    "SourceOptions",
    "detect_source",
    "load",
]
