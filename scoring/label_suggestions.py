"""Suggests a label of the bundle that is close to an unknown one, for the messages of errors.

Queries, streams, jobs and the model in process call it. Candidates are made from the unknown label
and looked up, so that the time depends on its length and not on the number of labels.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from string import ascii_lowercase, digits

from .bundle_info import BundleInfo

_MAX_LABEL_CHARS = 64  # of one that is compared; about 10,000 candidates, a millisecond or two
_MIN_EDITED_CHARS = 3  # in shorter ones, one other character is another label
_LETTERS = ascii_lowercase + digits + " _-.'"


def label_hint(label: str, bundle_info: BundleInfo) -> str:
    """Return the end of a message: a label in another spelling, or with one other letter.

    It is empty if no such label is in the bundle.
    """
    label = label.removeprefix(bundle_info.label_prefix)
    return _hint(chain(_spellings(label), _edits(label), _edits(label.lower())), label, bundle_info)


def spelling_hint(label: str, bundle_info: BundleInfo) -> str:
    """Return the end of a message: a label that differs in case, or in spaces and their signs.

    It takes a few microseconds, so that it may be called for each row of a file.
    """
    label = label.removeprefix(bundle_info.label_prefix)
    return _hint(_spellings(label), label, bundle_info)


def _hint(candidates: Iterable[str], label: str, bundle_info: BundleInfo) -> str:
    if len(label) > _MAX_LABEL_CHARS:
        return ""
    known = bundle_info.target_of_label
    found = next((one for one in candidates if one in known), None)
    return "" if found is None else f": did you mean {found!r}?"


def _spellings(label: str) -> Iterator[str]:
    stripped = label.strip()
    for text in (stripped, stripped.replace(" ", "_"), stripped.replace("_", " ")):
        yield from (text, text.lower(), text.capitalize(), text.upper(), text.title())


def _edits(label: str) -> Iterator[str]:
    """Yield each text that one swap, one letter less, one other letter or one more makes."""
    if len(label) < _MIN_EDITED_CHARS:
        return
    places = range(len(label) + 1)
    yield from (label[:i] + label[i : i + 2][::-1] + label[i + 2 :] for i in places)
    yield from (label[:i] + label[i + 1 :] for i in places)
    yield from (label[:i] + letter + label[i + 1 :] for i in places for letter in _LETTERS)
    yield from (label[:i] + letter + label[i:] for i in places for letter in _LETTERS)
