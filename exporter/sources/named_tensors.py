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

Harmless = Mapping[str, str]  # pattern of a name after the softmax's prefix -> why it is not needed
ReadTensors = Callable[[Path, Callable[[str], bool]], dict[str, Array]]

_MAX_NAMES_SHOWN = 8
_MAX_NAME_CHARS = 1000
_TRAINING: Harmless = {  # at the top of a file, never under a prefix
    r"(optimizer(_state_dict)?|(lr_)?scheduler)(\..+)?": "the optimizer's state",
    r"epoch|global_step|iteration": "a counter of the training",
}


class NamedTensors(Mapping[str, Array]):
    """The tensors that a source may read, and the names of all tensors in the file.

    Reading a tensor by `[]` or `get` counts as using it; `in` and iteration do not.
    """

    def __init__(self, tensors: Mapping[str, Array], names: Iterable[str]) -> None:
        self.prefix = ""
        self._tensors = tensors
        self._names = tuple(names)
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
        return [
            name
            for name in self._names
            if name not in self._used
            and (name.startswith(self.prefix) or not folders.isdisjoint(_folders(name)))
        ]


@contextmanager
def named_tensors(
    path: Path, read: ReadTensors, is_own: Callable[[str], bool], harmless: Harmless | None = None
) -> Iterator[NamedTensors]:
    """Give the tensors whose names `is_own` accepts; at the end check that none was left out.

    The whole file is the softmax's own, unless the source narrows `prefix`.

    Raises:
        SourceError: the file cannot be read, or holds tensors with the softmax's own that the
            source did not use and that may change its answers.
    """
    names: set[str] = set()

    def is_wanted(name: str) -> bool:
        if len(name) > _MAX_NAME_CHARS:  # it may have as many folders as characters
            raise SourceError(
                f"{path.name}: expected names of at most {_MAX_NAME_CHARS} characters, "
                f"got {len(name)}"
            )
        names.add(name)
        return is_own(name)

    tensors = NamedTensors(read(path, is_wanted), names)
    yield tensors
    expect_harmless(path, tensors.unused(), harmless or {}, prefix=tensors.prefix)


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
