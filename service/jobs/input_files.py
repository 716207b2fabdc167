"""Finds the input files of a job: one uploaded file, or the files at a path under the input root.

Submission and execution call it. A path cannot lead out of the input root, also not by a link.
"""

import errno
from pathlib import Path

from hsoftmax.scoring import CallError, find_inputs
from hsoftmax.service.errors import Forbidden, InvalidQuery, UnknownFile

from .state_dir import StateDir
from .stored_spec import StoredJobSpec


def input_files(spec: StoredJobSpec, state_dir: StateDir, root: Path | None) -> tuple[Path, ...]:
    """Return the input files of a job, with all links resolved.

    Raises:
        Forbidden: the job names a path, but the service has no input root.
        InvalidQuery: the path leads out of the root, is unreadable, or has no known format.
        UnknownFile: the file does not exist.
    """
    if spec.path is None:
        return (_uploaded(spec, state_dir),)
    if root is None:
        raise Forbidden("input_path: expected input_file_id, as this service has no input root")
    return _files_under_root(spec.path, root.resolve())


def _uploaded(spec: StoredJobSpec, state_dir: StateDir) -> Path:
    path = state_dir.folder / (spec.file or "")
    if not path.is_file():
        raise UnknownFile("input: expected the file that was uploaded, got none")
    return path


def _files_under_root(requested: str, root: Path) -> tuple[Path, ...]:
    path = _resolve_within(requested, requested, root)
    try:
        if not path.exists():
            raise UnknownFile(f"input_path: expected a file or a folder, got none at {requested!r}")
        files = find_inputs(path)
    except CallError as error:
        raise InvalidQuery(f"input_path: {_hide_root(str(error), root)}") from None
    except OSError as error:  # a name that is too long, or a folder without read permission
        raise InvalidQuery(f"input_path: it cannot be read: {error.strerror}") from None
    return tuple(_resolve_within(str(file.relative_to(root)), requested, root) for file in files)


def client_message(
    error: Exception,
    spec: StoredJobSpec,
    files: tuple[Path, ...],
    state_dir: StateDir,
    root: Path | None,
) -> str:
    """Return the error's message with the file names that the client knows, and no server path."""
    message = str(error)
    if spec.path is None:
        for file in files:
            name = spec.filename or "input"
            message = message.replace(str(file), name).replace(file.name, name)
    elif root is not None:
        message = _hide_root(message, root.resolve())
    return message.replace(f"{state_dir.folder}/", "")


def _resolve_within(path: str, requested: str, root: Path) -> Path:
    if "\0" in path or Path(path).is_absolute():
        raise _outside_root(requested)
    if _has_link_loop(root / path):
        raise _outside_root(requested)
    resolved = (root / path).resolve()
    if not resolved.is_relative_to(root):
        raise _outside_root(requested)
    return resolved


def _has_link_loop(path: Path) -> bool:
    """Tell if a link of the path leads back to itself.

    Python 3.13 reports that only when strict, as OSError; older versions raise RuntimeError.
    """
    try:
        path.resolve(strict=True)
    except RuntimeError:
        return True
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


def _outside_root(path: str) -> InvalidQuery:
    return InvalidQuery(f"input_path: expected a path within the input root, got {path[:200]!r}")


def _hide_root(message: str, root: Path) -> str:
    return message.replace(f"{root}/", "").replace(str(root), ".")
