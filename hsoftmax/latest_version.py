"""Finds the highest version of a bundle that is named without its version."""

from itertools import islice
from pathlib import Path

from hsoftmax import bundle

_MAX_NAMES = 100  # of a folder that are looked at for a suggestion


def latest_version(path: Path) -> Path:
    """Returns the folder of the highest version under `path`, or `path` itself if it has none.

    Raises:
        BundleError: there is no bundle at all; the message has the next step.
    """
    versions = bundle.versions(path)
    if versions:
        return path / str(versions[-1])
    _expect_manifest(path)
    return path


def _expect_manifest(path: Path) -> None:
    try:
        (path / bundle.MANIFEST).stat()
    except (FileNotFoundError, NotADirectoryError):
        message = f"{path}: expected a bundle, got no {bundle.MANIFEST}: {_next_step(path)}"
        raise bundle.BundleError(message) from None
    except OSError:
        return  # the error of opening it has the reason


def _next_step(path: Path) -> str:
    if not path.is_dir():
        return "give REPOSITORY/NAME or REPOSITORY/NAME/VERSION, which hsoftmax export made"
    folders = (folder for folder in islice(path.iterdir(), _MAX_NAMES) if bundle.versions(folder))
    if found := min(folders, default=None):
        return f"give one of the bundles in it, such as {found}"
    return "give a folder that hsoftmax export made"
