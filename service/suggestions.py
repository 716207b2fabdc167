"""Suggests the known name that is closest to an unknown one, for the messages of errors.

The JSON codec suggests fields, the scoring tasks suggest tasks, and the error handlers routes.
"""

from collections.abc import Collection, Iterable
from difflib import get_close_matches

MAX_NAME_LENGTH = 64  # longer names are not compared, which bounds the work for an error
_MAX_SEGMENTS = 8  # of a path


def closest(name: str, known: Collection[str]) -> str | None:
    """The known name that is closest to `name`, or None if no name is close."""
    if len(name) > MAX_NAME_LENGTH:
        return None
    matches = get_close_matches(name.lower(), list(known), n=1)
    return matches[0] if matches else None


def did_you_mean(name: str, known: Collection[str]) -> str:
    """The end of an error message that suggests a name; empty if no name is close."""
    suggestion = closest(name, known)
    return "" if suggestion is None else f": did you mean {suggestion}?"


def closest_path(path: str, templates: Iterable[str]) -> str | None:
    """The template of the route that is closest to `path`, or None.

    A route is close if one segment of the path is close to the route's, and the others match.
    """
    segments = path.split("/", _MAX_SEGMENTS)
    near: dict[int, dict[str, str]] = {}  # by the place of that segment: the segment, its template
    for template in templates:
        expected = template.split("/")
        different = _different_segments(segments, expected)
        if different is not None and len(different) == 1:
            near.setdefault(different[0], {})[expected[different[0]]] = template
    for place, known in near.items():
        if (suggestion := closest(segments[place], known)) is not None:
            return known[suggestion]
    return None


def _different_segments(segments: list[str], expected: list[str]) -> list[int] | None:
    """The places where a path differs from a route; None if it can't be of the same form."""
    if len(segments) != len(expected):
        return None
    pairs = list(zip(segments, expected, strict=True))
    if not all(got for got, wanted in pairs if wanted.startswith("{")):
        return None
    return [
        i for i, (got, wanted) in enumerate(pairs) if got != wanted and not wanted.startswith("{")
    ]
