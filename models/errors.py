"""Errors with one sentence for the user, and those that weights and queries raise.

UserError (ValueError)
├── ModelError
│   ├── WeightsError     the trained arrays do not make a model
│   └── QueryError       the model cannot answer the query
├── bundle.BundleError
├── exporter.ExportError and its subclasses
└── service.ServiceError and its subclasses
"""

from typing import ClassVar


class UserError(ValueError):
    """Base of errors whose text tells a user, in one sentence, what was expected and received."""

    exit_code: ClassVar[int] = 1


class ModelError(UserError):
    """Base of the errors that `models` raises."""


class WeightsError(ModelError):
    """The trained arrays do not fit each other, or hold NaN or infinity."""


class QueryError(ModelError):
    """The model cannot answer for this hidden matrix, target or k."""
