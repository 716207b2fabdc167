"""Finds labels by a part of their text, in slices that take about a millisecond each.

The service's route of labels calls it between other requests, and the model in process at once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

MAX_PAGE_LABELS = 10_000
DEFAULT_PAGE_LABELS = 100

_SLICE_LABELS = 2**12


@dataclass(frozen=True, slots=True)
class LabelSearch:
    """The labels that are searched for, and the page of them that is returned.

    Attributes:
        search: text that a label contains, in any place; every label contains the empty text
        prefix: text that a label begins with
        start: the first target of the page
        limit: the most labels of the page
    """

    search: str = ""
    prefix: str = ""
    start: int = 0
    limit: int = DEFAULT_PAGE_LABELS


@dataclass(frozen=True, slots=True)
class LabelMatches:
    """One page of targets whose labels match, ascending.

    Attributes:
        next_start: the `start` of the next page, None if this is the last one
    """

    targets: tuple[int, ...]
    next_start: int | None


def search_steps(labels: Sequence[str], query: LabelSearch) -> Iterator[list[int]]:
    """Yields the matching targets of each slice, until there is one more than the page holds."""
    found = 0
    for first in range(query.start, len(labels), _SLICE_LABELS):
        slice_of_labels = labels[first : first + _SLICE_LABELS]
        targets = list(islice(_matches(slice_of_labels, first, query), query.limit + 1 - found))
        yield targets
        found += len(targets)
        if found > query.limit:
            return


def page_of(steps: Sequence[list[int]], query: LabelSearch) -> LabelMatches:
    """Returns the page that the results of `search_steps` make."""
    targets = [target for step in steps for target in step]
    more = len(targets) > query.limit
    return LabelMatches(tuple(targets[: query.limit]), targets[query.limit] if more else None)


def _matches(labels: Sequence[str], first: int, query: LabelSearch) -> Iterator[int]:
    search, prefix = query.search, query.prefix
    return (
        target
        for target, label in enumerate(labels, first)
        if search in label and label.startswith(prefix)
    )
