"""What can be wrong with weights or with a question put to them.

    ModelError (ValueError)
    ├── WeightsError     the trained arrays do not make a model
    └── QueryError       the question cannot be asked of this model
"""


class ModelError(ValueError):
    """Base of everything `models` raises; the text is one sentence fit for a user."""


class WeightsError(ModelError):
    """Trained arrays that do not fit each other, or hold NaN or infinity."""


class QueryError(ModelError):
    """A hidden matrix, target or k that this model cannot answer for."""
