"""Errors of the export from a weights file to a bundle.

ExportError (models.UserError)
├── SourceError          the weights file cannot be read, or is not of the given format
├── EncoderRefused       an ONNX model that cannot be the encoder of this head
├── DestinationError     the bundle cannot or must not be written to this place
└── VerificationError    graphs that differ from the reference, or too inaccurate a bundle
"""

from typing import ClassVar

from hsoftmax.models import UserError


class ExportError(UserError):
    """Base of the errors that the exporter raises."""


class SourceError(ExportError):
    """The weights file cannot be read, or lacks a part of its format."""


class EncoderRefused(ExportError):
    """The ONNX model is no encoder, or not one that fits the head."""


class DestinationError(ExportError):
    """The bundle's name or version cannot be written."""

    exit_code: ClassVar[int] = 2


class VerificationError(ExportError):
    """The bundle's results differ from the reference, or too much from the trained weights."""
