"""Finds a softmax among the named tensors of a trained module, under any prefix."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hsoftmax.exporter.errors import SourceError
from hsoftmax.models.arrays import Array

from .named_tensors import NamedTensors
from .source import SourceOptions

_MAX_DIGITS = 9  # of the number in a name


def select_prefix(state: NamedTensors, *members: str, path: Path, options: SourceOptions) -> str:
    """Narrow the tensors to the softmax that has all these names, and return its prefix.

    It is the only one, or that of `options.prefix`. Another softmax in the same file is elsewhere.

    Raises:
        SourceError: there is no such softmax, or there are several.
    """
    prefixes = _prefixes(state, members)
    chosen = [prefix for prefix in prefixes if _is_chosen(prefix, options.prefix)]
    if len(chosen) == 1:
        state.prefix = chosen[0]
        state.elsewhere = tuple(prefix for prefix in prefixes if prefix != chosen[0])
        return chosen[0]
    expected = " and ".join(members)
    if not prefixes:
        raise SourceError(f"{path.name}: expected {expected} under any prefix, got no such tensors")
    quoted = ", ".join(repr(prefix) for prefix in prefixes)
    if options.prefix is None:
        raise SourceError(
            f"{path.name}: expected {expected} under one prefix, got {quoted}: choose one "
            "with --prefix"
        )
    raise SourceError(
        f"{path.name}: --prefix: expected {' or '.join(map(repr, prefixes))}, "
        f"got {options.prefix!r}"
    )


def _prefixes(tensors: Mapping[str, Array], members: Sequence[str]) -> list[str]:
    """Return the prefixes under which all these names exist."""
    first = members[0]
    return sorted(
        prefix
        for prefix in (name.removesuffix(first) for name in tensors if name.endswith(first))
        if prefix[-1:] in {"", "."} and all(prefix + member in tensors for member in members)
    )


def _is_chosen(prefix: str, wanted: str | None) -> bool:
    return wanted is None or prefix in {wanted, f"{wanted}."}


def numbered(tensors: Mapping[str, Array], before: str, after: str, *, path: Path) -> list[Array]:
    """Return tensors `before0after`, `before1after`, ...; raise SourceError if one is missing."""
    result: list[Array] = []
    while (name := f"{before}{len(result)}{after}") in tensors:
        result.append(tensors[name])
    highest = max(
        (int(number) for name in tensors if (number := _number(name, before, after))), default=-1
    )
    if highest >= len(result):
        raise SourceError(
            f"{path.name}: expected {before}{len(result)}{after}, got only later ones"
        )
    return result


def _number(name: str, before: str, after: str) -> str | None:
    if not (name.startswith(before) and name.endswith(after)):
        return None
    number = name[len(before) : len(name) - len(after)]
    return number if number.isascii() and number.isdigit() and len(number) <= _MAX_DIGITS else None
