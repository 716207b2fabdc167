"""Converts trained weights into a verified bundle."""

from .errors import DestinationError, ExportError, SourceError, VerificationError
from .export import Origin, PrecisionOptions, export_file, export_model, exporter_version
from .sources import AUTO, SOURCES, ClusterOrder, DetectedSource, SourceOptions, detect_source
from .staging import Destination, parse_destination
from .verification.graph_checks import failures, verify

__all__ = [
    "AUTO",
    "SOURCES",
    "ClusterOrder",
    "Destination",
    "DestinationError",
    "DetectedSource",
    "ExportError",
    "Origin",
    "PrecisionOptions",
    "SourceError",
    "SourceOptions",
    "VerificationError",
    "detect_source",
    "export_file",
    "export_model",
    "exporter_version",
    "failures",
    "parse_destination",
    "verify",
]
