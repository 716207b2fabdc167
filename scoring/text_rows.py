"""Turns the texts, and the inputs by name, among the rows of a batch into hidden states.

A wrong one is an error of its own row. Every reader of rows that may be text calls it.
"""

from collections.abc import Mapping
from typing import TypeGuard

from hsoftmax.featurizers import Featurizer, TextInput, featurize
from hsoftmax.models.arrays import Float32

from .bundle_info import BundleInfo, EncodesRows, NamedRow
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
    if bundle_info.encoder is not None and bundle_info.takes_text:
        _fill(hidden, texts, row_errors, bundle_info.encoder)
    elif bundle_info.featurizer is not None:
        _featurize(hidden, texts, row_errors, bundle_info.featurizer)
    else:
        row_errors |= dict.fromkeys(texts, _takes_no_text(bundle_info))


def _featurize(
    hidden: Float32,
    texts: Mapping[int, TextInput],
    row_errors: dict[int, RowError],
    featurizer: Featurizer,
) -> None:
    positions = list(texts)
    results = featurize(featurizer, list(texts.values()))
    hidden[positions] = results.hidden
    for i, error in results.errors.items():
        row_errors[positions[i]] = RowError("invalid_query", f"input: {error}")


def fill_named(
    hidden: Float32,
    named: Mapping[int, NamedRow],
    row_errors: dict[int, RowError],
    bundle_info: BundleInfo,
) -> None:
    """Do the same for rows of the inputs of an encoder by name."""
    if named:
        assert bundle_info.encoder is not None  # else no reader makes such rows
        _fill(hidden, named, row_errors, bundle_info.encoder)


def _fill(
    hidden: Float32,
    rows: Mapping[int, TextInput | NamedRow],
    row_errors: dict[int, RowError],
    encoder: EncodesRows,
) -> None:
    for i, result in zip(rows, encoder(list(rows.values())), strict=True):
        if isinstance(result, RowError):
            row_errors[i] = result
        elif isinstance(result, str):
            row_errors[i] = RowError("invalid_query", result)
        else:
            hidden[i] = result


def _takes_no_text(bundle_info: BundleInfo) -> RowError:
    return RowError(
        "invalid_query",
        f"input: expected {bundle_info.hidden_size} numbers, got text: {bundle_info.name} takes no "
        "text here, so give hidden states, or score with a bundle that was exported with its text",
    )
