"""Which files a job reads: one that was uploaded, or what a path under the input root names."""

from pathlib import Path

from hsoftmax.scoring import CallError, find_inputs
from hsoftmax.service.errors import Forbidden, InvalidQuery, UnknownFile

from .state_dir import StateDir
from .stored_spec import Spec


def input_files(spec: Spec, place: StateDir, root: Path | None) -> tuple[Path, ...]:
    """The input's files, none of which is elsewhere by whatever link.

    Raises:
        Forbidden: a path, where there is no input root.
        InvalidQuery: a path that leads out of it, to no file of a known format, or cannot be read.
        UnknownFile: no such file.
    """
    if spec.path is None:
        return (_uploaded(spec, place),)
    if root is None:
        raise Forbidden("input_path: expected input_file_id, as this service has no input root")
    return _in_place(spec.path, root.resolve())


def _uploaded(spec: Spec, place: StateDir) -> Path:
    path = place.folder / (spec.file or "")
    if not path.is_file():
        raise UnknownFile("input: expected the file that was uploaded, got none")
    return path


def _in_place(asked: str, inside: Path) -> tuple[Path, ...]:
    path = _within(asked, asked, inside)
    try:
        if not path.exists():
            raise UnknownFile(f"input_path: expected a file or a folder, got none at {asked!r}")
        files = find_inputs(path)
    except CallError as error:
        raise InvalidQuery(f"input_path: {_shown(str(error), inside)}") from None
    except OSError as error:  # a name too long for any file, a folder closed to us
        raise InvalidQuery(f"input_path: it cannot be read: {error.strerror}") from None
    return tuple(_within(str(file.relative_to(inside)), asked, inside) for file in files)


def told(
    error: Exception, spec: Spec, files: tuple[Path, ...], place: StateDir, root: Path | None
) -> str:
    """What the scoring core says, with names that its client knows."""
    said = str(error)
    if spec.path is None:
        for file in files:
            name = spec.filename or "input"
            said = said.replace(str(file), name).replace(file.name, name)
    elif root is not None:
        said = _shown(said, root.resolve())
    return said.replace(f"{place.folder}/", "")


def _within(path: str, asked: str, inside: Path) -> Path:
    if "\0" in path or Path(path).is_absolute():
        raise _outside(asked)
    try:
        found = (inside / path).resolve()
    except (OSError, RuntimeError):  # links that lead in circles
        raise _outside(asked) from None
    if not found.is_relative_to(inside):
        raise _outside(asked)
    return found


def _outside(path: str) -> InvalidQuery:
    return InvalidQuery(f"input_path: expected a path within the input root, got {path[:200]!r}")


def _shown(said: str, inside: Path) -> str:
    return said.replace(f"{inside}/", "").replace(str(inside), ".")
