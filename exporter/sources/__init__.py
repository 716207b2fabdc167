"""Sources: each reads one format of trained weights and parses it once into a model."""

from .loaded import Loaded, Options
from .registry import SOURCES, load

__all__ = ["SOURCES", "Loaded", "Options", "load"]
