"""Downloads one bundle into a folder, with every hash compared while the bytes arrive.

A file has its name only once its hash is right, so a download that was cut goes on with the files
that it lacks.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from hsoftmax import bundle
from hsoftmax.bundle import MANIFEST, BundleError, File, Manifest

from .errors import StoreError
from .objects import ObjectStore
from .versions import StoredVersion

_MAX_MANIFEST_BYTES = 16 << 20
_PART = ".part"


def fetch_manifest(store: ObjectStore, version: StoredVersion, folder: Path) -> Manifest:
    """Download and check the manifest of a version into an empty folder. Raises StoreError."""
    content = store.read(_path(version, MANIFEST), _MAX_MANIFEST_BYTES)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).write_bytes(content)
    place = store.url.join(*filter(None, [version.folder]))
    try:
        manifest = bundle.read_manifest(folder)
    except BundleError as error:
        raise StoreError(str(error).replace(str(folder), str(place))) from None
    _expect_uploaded(place, version, manifest)
    return manifest


def fetch_files(
    store: ObjectStore,
    version: StoredVersion,
    manifest: Manifest,
    folder: Path,
    on_bytes: Callable[[int], None] = lambda count: None,
) -> None:
    """Download the files of a bundle that the folder lacks, and sync them to the disk.

    Raises:
        StoreError: a file differs from its hash, or the store does not answer.
    """
    for name, file in manifest.files.items():
        path = folder / name
        if not (path.is_file() and path.stat().st_size == file.size):
            _fetch_file(store, _path(version, name), file, path, on_bytes)
    _sync(folder / MANIFEST)
    _sync(folder)


def expect_room(folder: Path, num_bytes: int) -> None:
    """Raise StoreError unless the disk of the folder has room for so many bytes."""
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise StoreError(f"store cache: expected {num_bytes} bytes of free disk, got {free}")


def _fetch_file(
    store: ObjectStore, path: str, wanted: File, to: Path, on_bytes: Callable[[int], None]
) -> None:
    part, hashed, size = to.with_name(to.name + _PART), hashlib.sha256(), 0
    with part.open("wb") as file:
        for piece in store.pieces(path, wanted.size):
            hashed.update(piece)
            file.write(piece)
            size += len(piece)
            on_bytes(len(piece))
        file.flush()
        os.fsync(file.fileno())
    if size != wanted.size:
        part.unlink()
        raise StoreError(f"{store.url.join(path)}: expected {wanted.size} bytes, got {size}")
    if (got := hashed.hexdigest()) != wanted.sha256:
        part.unlink()
        raise StoreError(f"{store.url.join(path)}: expected SHA-256 {wanted.sha256}, got {got}")
    part.rename(to)


def _expect_uploaded(place: object, version: StoredVersion, manifest: Manifest) -> None:
    """Raise StoreError if the list of the store lacks a file, or has it with another size."""
    if not version.files:
        return
    sizes = {file.path: file.size for file in version.files}
    for name, file in manifest.files.items():
        if sizes.get(name) != file.size:
            got = f"{sizes[name]} bytes" if name in sizes else "none"
            raise StoreError(f"{place}: expected {name} of {file.size} bytes, got {got}")


def _path(version: StoredVersion, name: str) -> str:
    return f"{version.folder}/{name}" if version.folder else name


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
