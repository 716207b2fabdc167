"""The error of one text that a featurizer cannot turn into numbers."""

from hsoftmax.models import UserError


class TextError(UserError):
    """One row's text or words are wrong; the message names neither the row nor the field."""
