"""Finds the highest version of a bundle that is named without its version."""

from pathlib import Path

from hsoftmax import bundle


def latest_version(path: Path) -> Path:
    """Returns the folder of the highest version under `path`, or `path` itself if it has none."""
    versions = bundle.versions(path)
    return path / str(versions[-1]) if versions else path
