"""The repository's folder as it is now: which versions there are, and whether they have changed."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

VERSION = re.compile(r"[1-9][0-9]{0,17}")


@dataclass(frozen=True, slots=True)
class VersionDir:
    """A version's folder; equal to another find of it as long as no file in it has changed."""

    name: str
    version: int
    path: Path
    files: tuple[tuple[str, int, int, int], ...]

    @property
    def key(self) -> str:
        return f"{self.name}/{self.version}"


def look(repository: Path) -> list[VersionDir]:
    """Every version of every bundle, in order. What vanishes meanwhile is not there."""
    return list(_versions(repository))


def look_at(name: str, version: int, path: Path) -> VersionDir:
    """One version's folder, whether or not it is there."""
    return VersionDir(name, version, path, _files(path))


def _versions(repository: Path) -> Iterator[VersionDir]:
    for folder in sorted(repository.iterdir()):
        if folder.name.startswith(".") or not folder.is_dir():
            continue
        for version in sorted(_numbers(folder)):
            yield look_at(folder.name, version, folder / str(version))


def _numbers(folder: Path) -> list[int]:
    try:
        return [int(name) for name in os.listdir(folder) if VERSION.fullmatch(name)]
    except OSError:
        return []


def _files(path: Path) -> tuple[tuple[str, int, int, int], ...]:
    """Name, inode, size and time of each file: what a copy, a rename or a write changes."""
    try:
        stats = [(entry.name, _stat(entry)) for entry in os.scandir(path)]
    except OSError:
        return ()
    return tuple(sorted((name, s.st_ino, s.st_size, s.st_mtime_ns) for name, s in stats))


def _stat(entry: os.DirEntry[str]) -> os.stat_result:
    """Of the file that a link leads to, as that may change without the link; else of the link."""
    try:
        return entry.stat()
    except OSError:
        return entry.stat(follow_symlinks=False)
