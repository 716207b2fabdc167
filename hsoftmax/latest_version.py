"""A bundle named without its version is the highest one."""

from pathlib import Path

from hsoftmax import bundle


def latest_version(path: Path) -> Path:
    """`path` itself where it is a bundle, else its highest version."""
    found = bundle.versions(path)
    return path / str(found[-1]) if found else path
