"""The named tensors of a file, and the check that no tensor of the softmax is left out.

A softmax that is exported without one of its tensors has other probabilities. Verification cannot
see that, because the reference lacks the tensor too. So every name that stands with the softmax's
own must be used by the source, or be known not to change the answers; else the file is refused.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hsoftmax.exporter.errors import SourceError
from hsoftmax.models.arrays import Array

from .naming import (
    MAX_NAME_CHARS,
    NameOf,
    array_name,
    expect_named,
    expect_prefixed,
    hint,
    state_name,
)
from .source import SourceOptions
from .tensor_files import read_tensors
from .weight_norm import multiplied_name, multiply_weight_norms

Harmless = Mapping[str, str]  # pattern of a name after the softmax's prefix -> why it is not needed

_MAX_NAMES_SHOWN = 8
_TRAINING: Harmless = {  # at the top of a file, never under a prefix
    r"(optimizer(_state_dict)?|(lr_)?scheduler)(\..+)?": "the optimizer's state",
    r"epoch|global_step|iteration": "a counter of the training",
}


class NamedTensors(Mapping[str, Array]):
    """The tensors that a source may read, and the names of all tensors in the file.

    Reading a tensor by `[]` or `get` counts as using it; `in` and iteration do not.

    Attributes:
        prefix: of the softmax's own names; a source may narrow it
        elsewhere: prefixes of other softmaxes in the same file
        names: of all tensors that may be the softmax's own
        in_file: the names of all tensors as the file has them
    """

    def __init__(
        self, tensors: Mapping[str, Array], names: Iterable[str], in_file: Iterable[str]
    ) -> None:
        self.prefix = ""
        self.elsewhere: tuple[str, ...] = ()
        self.names = tuple(names)
        self.in_file = tuple(in_file)
        self._tensors = tensors
        self._used: set[str] = set()

    def __getitem__(self, name: str) -> Array:
        tensor = self._tensors[name]
        self._used.add(name)
        return tensor

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def unused(self) -> list[str]:
        """Return the unused names under the prefix, and those beside or below a used tensor."""
        folders = {_folder(name) for name in self._used}
        others = tuple(other for other in self.elsewhere if other.startswith(self.prefix))
        return [
            name
            for name in self.names
            if name not in self._used
            and not name.startswith(others)
            and (name.startswith(self.prefix) or not folders.isdisjoint(_folders(name)))
        ]


@contextmanager
def named_arrays(
    path: Path,
    options: SourceOptions,
    is_own: Callable[[str], bool],
    harmless: Harmless | None = None,
) -> Iterator[NamedTensors]:
    """Give the plain arrays whose names `is_own` accepts, without the prefix of the options.

    Raises:
        SourceError: as `named_tensors`.
    """
    with _checked(path, options, array_name(options), is_own, harmless) as arrays:
        expect_prefixed(path, arrays.in_file, options)
        yield arrays


@contextmanager
def named_tensors(
    path: Path,
    options: SourceOptions,
    is_own: Callable[[str], bool],
    harmless: Harmless | None = None,
) -> Iterator[NamedTensors]:
    """Give the tensors whose names `is_own` accepts; at the end check that none was left out.

    The whole file is the softmax's own, unless the source narrows `prefix`.

    Raises:
        SourceError: the file cannot be read, or holds tensors with the softmax's own that the
            source did not use and that may change its answers.
    """
    with _checked(path, options, state_name(options), is_own, harmless) as tensors:
        yield tensors


@contextmanager
def _checked(
    path: Path,
    options: SourceOptions,
    name_of: NameOf,
    is_own: Callable[[str], bool],
    harmless: Harmless | None,
) -> Iterator[NamedTensors]:
    in_file: list[str] = []
    own: dict[str, str] = {}

    def is_wanted(name: str) -> bool:
        _expect_short(name, path)
        in_file.append(name)
        own_name = name_of(name)
        if own_name is None:
            return False
        if own_name in own:
            raise SourceError(
                f"{path.name}: expected one {own_name}, got {own[own_name]} and {name}"
            )
        own[own_name] = name
        return is_own(multiplied_name(own_name))

    read = read_tensors(path, is_wanted)
    expect_named(path, in_file, options)
    parts = {name: read[file_name] for name, file_name in own.items() if file_name in read}
    tensors = multiply_weight_norms(parts, path)
    names = (own.keys() - parts.keys()) | tensors.keys()
    named = NamedTensors(tensors, names, in_file)
    yield named
    expect_harmless(path, named.unused(), harmless or {}, prefix=named.prefix)


def _expect_short(name: str, path: Path) -> None:
    if len(name) > MAX_NAME_CHARS:  # it may have as many folders as characters
        raise SourceError(
            f"{path.name}: expected names of at most {MAX_NAME_CHARS} characters, got {len(name)}"
        )


def require_arrays(arrays: NamedTensors, *names: str, path: Path) -> list[Array]:
    """Return the named arrays in order; raise SourceError if one is missing."""
    missing = [name for name in names if name not in arrays]
    if missing:
        option = hint(arrays.in_file, frozenset(names).issubset, frozenset(names))
        raise SourceError(
            f"{path.name}: expected {', '.join(names)}, got no {', '.join(missing)}{option}"
        )
    return [arrays[name] for name in names]


def expect_harmless(
    path: Path, names: Iterable[str], harmless: Harmless, *, prefix: str = ""
) -> None:
    """Raise SourceError for unused names that no pattern in `harmless` matches after the prefix."""
    unknown = [
        name
        for name in sorted(names)
        if not _matches(harmless, name.removeprefix(prefix)) and not _matches(_TRAINING, name)
    ]
    if not unknown:
        return
    more = len(unknown) - _MAX_NAMES_SHOWN
    shown = ", ".join(unknown[:_MAX_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
    raise SourceError(
        f"{path.name}: expected only tensors that this format's softmax has, got {shown} with "
        "them: fold what changes the probabilities into the weights, or save the file without it"
    )


def _matches(harmless: Harmless, name: str) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in harmless)


def _folder(name: str) -> str:
    return name.rpartition(".")[0]


def _folders(name: str) -> Iterator[str]:
    """Yield all folders of a dotted name, from the inner to the outer."""
    while name := _folder(name):
        yield name
