"""Scans the folder that is served: its versions, and the state of their files.

The folder is a repository (`<name>/<version>/`), a model folder (`<version>/`) or one bundle. The
repository compares two scans to find new and changed versions.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hsoftmax.bundle import MANIFEST

VERSION = re.compile(r"[1-9][0-9]{0,17}")


@dataclass(frozen=True, slots=True)
class VersionDir:
    """The folder of one version. Two scans of it are equal as long as no file has changed.

    Attributes:
        name: the bundle's name
        files: name, inode, size and modification time of each file
    """

    name: str
    version: int
    path: Path
    files: tuple[tuple[str, int, int, int], ...]

    @property
    def key(self) -> str:
        """`<name>/<version>`."""
        return f"{self.name}/{self.version}"


def scan(folder: Path, model_name: str | None = None) -> list[VersionDir]:
    """Every version of every bundle, in order; without folders that vanish during the scan.

    The content decides about the kind of the folder. `model_name` is the name of a model folder or
    of one bundle, by default that of the folder; the models of a repository keep their own.
    """
    if _is_bundle(folder):
        return [_one_bundle(folder, model_name)]
    if versions := [one for one in _version_numbers(folder) if _is_bundle(folder / str(one))]:
        name = model_name or folder.resolve().name
        return [stat_version(name, one, folder / str(one)) for one in sorted(versions)]
    return list(_iterate(folder))


def stat_version(name: str, version: int, path: Path) -> VersionDir:
    """One version's folder; without files if it is not there."""
    return VersionDir(name, version, path, _stat_files(path))


def _iterate(repository: Path) -> Iterator[VersionDir]:
    for folder in sorted(repository.iterdir()):
        if folder.name.startswith(".") or not folder.is_dir():
            continue
        for version in sorted(_version_numbers(folder)):
            yield stat_version(folder.name, version, folder / str(version))


def _one_bundle(folder: Path, model_name: str | None) -> VersionDir:
    """The version of a folder that is a bundle; 1 if its name is no version."""
    path = folder.resolve()
    if VERSION.fullmatch(path.name):
        return stat_version(model_name or path.parent.name, int(path.name), folder)
    return stat_version(model_name or path.name, 1, folder)


def _is_bundle(folder: Path) -> bool:
    return (folder / MANIFEST).is_file()


def _version_numbers(folder: Path) -> list[int]:
    try:
        return [int(name) for name in os.listdir(folder) if VERSION.fullmatch(name)]
    except OSError:
        return []


def _stat_files(path: Path) -> tuple[tuple[str, int, int, int], ...]:
    """Name, inode, size and time of each file: a copy, a rename or a write changes one of them."""
    try:
        stats = [(entry.name, _stat(entry)) for entry in os.scandir(path)]
    except OSError:
        return ()
    return tuple(sorted((name, s.st_ino, s.st_size, s.st_mtime_ns) for name, s in stats))


def _stat(entry: os.DirEntry[str]) -> os.stat_result:
    """The state of a file; of a link, the state of its target, which may change without the link.

    A link to nothing has a state of its own.
    """
    try:
        return entry.stat()
    except OSError:
        return entry.stat(follow_symlinks=False)
