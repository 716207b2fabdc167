"""The names that `hsoftmax.exporter` has for other packages."""

from .choices import AUTO, ClusterOrder
from .errors import DestinationError, ExportError, SourceError, VerificationError
from .export import Fidelity, Origin, export_file, export_model, signature
from .sources import SOURCES, Options, Recognised, recognise
from .staging import Destination, destination
from .verification.graph_checks import failures, verify

__all__ = [
    "AUTO",
    "SOURCES",
    "ClusterOrder",
    "Destination",
    "DestinationError",
    "ExportError",
    "Fidelity",
    "Options",
    "Origin",
    "Recognised",
    "SourceError",
    "VerificationError",
    "destination",
    "export_file",
    "export_model",
    "failures",
    "recognise",
    "signature",
    "verify",
]
