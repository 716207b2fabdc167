"""Turns the texts among the rows of a batch into hidden states.

A wrong text is an error of its own row. Every reader of rows that may be text calls it.
"""

from collections.abc import Mapping
from typing import TypeGuard

from hsoftmax.featurizers import TextInput, featurize
from hsoftmax.models.arrays import Float32

from .bundle_info import BundleInfo
from .errors import RowError


def is_text(row: object) -> TypeGuard[TextInput]:
    """Return True for a text or a list that begins with a word; an empty list is no words."""
    return isinstance(row, str) or (isinstance(row, list) and bool(row) and isinstance(row[0], str))


def fill_texts(
    hidden: Float32,
    texts: Mapping[int, TextInput],
    row_errors: dict[int, RowError],
    bundle_info: BundleInfo,
) -> None:
    """Write the hidden states of texts, given by position, into their rows, or add their errors."""
    if not texts:
        return
    if bundle_info.featurizer is None:
        row_errors |= dict.fromkeys(texts, _takes_no_text(bundle_info))
        return
    positions = list(texts)
    results = featurize(bundle_info.featurizer, list(texts.values()))
    hidden[positions] = results.hidden
    for i, error in results.errors.items():
        row_errors[positions[i]] = RowError("invalid_query", f"input: {error}")


def _takes_no_text(bundle_info: BundleInfo) -> RowError:
    return RowError(
        "invalid_query",
        f"input: expected {bundle_info.hidden_size} numbers, got text: {bundle_info.name} takes no "
        "text here, so give hidden states, or score with a bundle that was exported with its text",
    )
