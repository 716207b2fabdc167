"""What can be wrong with weights or with a question put to them.

UserError (ValueError)
├── ModelError
│   ├── WeightsError     the trained arrays do not make a model
│   └── QueryError       the question cannot be asked of this model
├── bundle.BundleError
├── exporter.ExportError and its kinds
└── service.ServiceError and its kinds
"""

from typing import ClassVar


class UserError(ValueError):
    """Base of every error whose text is one sentence fit for a user: what was got, what wanted."""

    exit_code: ClassVar[int] = 1


class ModelError(UserError):
    """Base of what `models` raises."""


class WeightsError(ModelError):
    """Trained arrays that do not fit each other, or hold NaN or infinity."""


class QueryError(ModelError):
    """A hidden matrix, target or k that this model cannot answer for."""
