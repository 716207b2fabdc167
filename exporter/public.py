"""The public names of `hsoftmax.exporter`, for other packages."""

from .choices import AUTO, ClusterOrder
from .encoder import EncoderOptions, verify_encoder
from .errors import DestinationError, EncoderRefused, ExportError, SourceError, VerificationError
from .export import Origin, PrecisionOptions, export_file, export_model, exporter_version
from .sources import SOURCES, DetectedSource, SourceOptions, detect_source
from .staging import Destination, parse_destination
from .verification.reference_check import failures, verify, verify_kernels

__all__ = [
    "AUTO",
    "SOURCES",
    "ClusterOrder",
    "Destination",
    "DestinationError",
    "DetectedSource",
    "EncoderOptions",
    "EncoderRefused",
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
    "verify_encoder",
    "verify_kernels",
]
