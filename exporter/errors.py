"""What can go wrong on the way from a weights file to a bundle.

ExportError (models.UserError)
├── SourceError          a weights file that cannot be read, or is not what it was said to be
├── DestinationError     a place that a bundle cannot or must not be written to
└── VerificationError    graphs that do not answer as the reference does, or not nearly enough
"""

from typing import ClassVar

from hsoftmax.models import UserError


class ExportError(UserError):
    """Base of what the exporter raises itself."""


class SourceError(ExportError):
    """A weights file that cannot be read, or lacks what its format has."""


class DestinationError(ExportError):
    """A bundle name or version that cannot be written."""

    exit_code: ClassVar[int] = 2


class VerificationError(ExportError):
    """A bundle whose answers differ from the reference, or too much from the trained weights'."""
