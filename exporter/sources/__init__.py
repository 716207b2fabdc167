"""Readers of trained weights: each source reads one format and builds a model from it."""

from .registry import SOURCES, DetectedSource, detect_source, load
from .source import SourceModel, SourceOptions

__all__ = [
    "SOURCES",
    "DetectedSource",
    "SourceModel",
    "SourceOptions",
    "detect_source",
    "load",
]
