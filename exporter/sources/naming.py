"""The names of tensors: those in a file, and those that a format gives them.

Two options connect them. `--prefix` selects one of several softmaxes in a file, and `--names`
gives a tensor of any name the name that the format has for it:

    --prefix ema.                ema.W1 is W1; names that do not begin with ema. are elsewhere
    --names W1=softmax_w         softmax_w is W1, with any prefix
"""

import re
from collections.abc import Callable, Collection, Iterable
from difflib import get_close_matches
from pathlib import Path

from hsoftmax.exporter.errors import SourceError

from .source import SourceOptions
from .weight_norm import multiplied_name

# Of the formats of plain arrays.
ARRAY_NAMES = frozenset(
    {"W1", "b1", "W2", "b2", "weight", "bias", "parent", "class_of", "offsets", "syn1", "path",
     "sign"}
)  # fmt: skip

NameOf = Callable[[str], str | None]  # from the name in a file; None for one that is elsewhere

_POSITIONAL = re.compile(r"arr_\d+")  # of an array that was saved without a name
_SEPARATORS = re.compile(r".*?[./_]")
MAX_NAME_CHARS = 1000  # a name may have as many prefixes as characters
_MAX_NAMES_SHOWN = 8
_MAX_PREFIXES = 100
_MAX_COMPARED = 1000  # names of a file
_MIN_CLOSENESS = 0.8  # parents is close to parent, and biases is not to bias
_MAX_SHOWN_CHARS = 80  # of one name


def state_name(options: SourceOptions) -> NameOf:
    """Return the function that names the tensors of a module, which keep their prefix."""
    renames = {in_file: own for own, in_file in options.names}
    return lambda name: renames.get(name, name)


def array_name(options: SourceOptions) -> NameOf:
    """Return the function that names plain arrays, which lose their prefix.

    Where names are given, arrays without a name (`arr_0`) that are not among them are elsewhere:
    such a file often holds a whole model, and its positions say nothing.
    """
    renames = {in_file: own for own, in_file in options.names}
    prefix = options.prefix or ""

    def name_of(name: str) -> str | None:
        if name in renames:
            return renames[name]
        if renames and _POSITIONAL.fullmatch(name):
            return None
        return name.removeprefix(prefix) if name.startswith(prefix) else None

    return name_of


def own_names(names: Iterable[str], options: SourceOptions) -> frozenset[str]:
    """Return the names of a file as a format sees them."""
    name_of = array_name(options)
    return frozenset(multiplied_name(own) for name in names if (own := name_of(name)) is not None)


def expect_named(path: Path, in_file: Collection[str], options: SourceOptions) -> None:
    """Raise SourceError if the file has no tensor of a name in the options."""
    for _, name in options.names:
        if name not in in_file:
            raise SourceError(
                f"{path.name}: --names: expected a tensor {name}, got {show_names(in_file)}"
            )


def expect_prefixed(path: Path, in_file: Collection[str], options: SourceOptions) -> None:
    """Raise SourceError if no array of the file has the prefix of the options."""
    if options.prefix and not any(name.startswith(options.prefix) for name in in_file):
        raise SourceError(
            f"{path.name}: --prefix: expected names that begin with {options.prefix!r}, "
            f"got {show_names(in_file)}"
        )


def prefixes(names: Iterable[str], has_format: Callable[[frozenset[str]], bool]) -> list[str]:
    """Return the prefixes after which the names are those of a format."""
    names = frozenset(names)
    short = [name for name in names if len(name) <= MAX_NAME_CHARS]  # others are refused
    candidates = sorted({prefix for name in short for prefix in _prefixes_of(name)})
    return [
        prefix
        for prefix in candidates[:_MAX_PREFIXES]
        if has_format(own_names(names, SourceOptions(prefix=prefix)))
    ]


def hint(
    names: Iterable[str],
    has_format: Callable[[frozenset[str]], bool],
    known: Iterable[str] = ARRAY_NAMES,
) -> str:
    """Return the option that may help with a file whose names are not the format's, or nothing.

    `known` are names of formats, for which names in the file that are close to them may stand.
    """
    names = frozenset(names)
    if found := prefixes(names, has_format):
        return f": choose one with --prefix {' or '.join(found[:_MAX_NAMES_SHOWN])}"
    if any(map(_POSITIONAL.fullmatch, names)):
        return ": say which array is which with --names, such as --names W1=arr_0,b1=arr_1"
    if renames := _close_names(names, known):
        renamed = (names - renames.keys()) | set(renames.values())
        if has_format(renamed):
            pairs = ",".join(f"{own}={in_file}" for in_file, own in renames.items())
            return f": say --names {pairs} if that is what they are"
    return ""


def _close_names(names: frozenset[str], known: Iterable[str]) -> dict[str, str]:
    """Return for names in a file the close name of a format that the file lacks."""
    spare = [name for name in sorted(names)[:_MAX_COMPARED] if len(name) <= _MAX_SHOWN_CHARS]
    of_lower = {name.lower(): name for name in spare if name not in known}
    close: dict[str, str] = {}
    for own in sorted(frozenset(known) - names):
        if found := get_close_matches(own.lower(), of_lower, n=1, cutoff=_MIN_CLOSENESS):
            close.setdefault(of_lower[found[0]], own)
    return close


def show_names(names: Iterable[str]) -> str:
    """Return a few of the names as text."""
    ordered = sorted(names)
    shown = ", ".join(name[:_MAX_SHOWN_CHARS] for name in ordered[:_MAX_NAMES_SHOWN])
    more = len(ordered) - _MAX_NAMES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown or "none"


def _prefixes_of(name: str) -> set[str]:
    """Return the parts of a name up to each of its separators."""
    return {name[: match.end()] for match in _SEPARATORS.finditer(name)}
