"""Opens a bundle on disk, checks its bytes and maps its tensors.

Tensors are views of one read-only memory map that processes share; they are not read into memory.
"""

import hashlib
import mmap
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from hsoftmax import models
from hsoftmax.models.arrays import Array
from hsoftmax.models.decoder_errors import reason_of

from .manifest import MANIFEST, WEIGHTS, File, Manifest, StoredTensor
from .regular_file import NotRegularFile, open_regular
from .text_file import TextFileError, decode_text

_MAX_MANIFEST_BYTES = 16 << 20  # a manifest has some ten kilobytes


class BundleError(models.UserError):
    """The bundle cannot be read, or its content does not match its manifest."""


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its directory and its checked manifest."""

    path: Path
    manifest: Manifest

    def file(self, name: str) -> Path:
        return self.path / name


def open_bundle(path: Path, *, check_hashes: bool = True) -> Bundle:
    """Read and check the manifest, and check that every file exists and has its size and its hash.

    Hashing takes about 0.7 s for 1 GB. Without `check_hashes` it is left out.

    Raises:
        BundleError: not a bundle, a manifest that does not fit, a missing, short or damaged file.
    """
    bundle = _open(path)
    if check_hashes:
        _expect_hashes(bundle, bundle.manifest.files)
    return bundle


def _open(path: Path) -> Bundle:
    bundle = Bundle(path, read_manifest(path))
    for name, file in bundle.manifest.files.items():
        _expect_file(bundle.file(name), file)
    return bundle


def read_manifest(path: Path) -> Manifest:
    """Read and check the manifest of a bundle whose other files may not be there yet.

    Raises:
        BundleError: not a bundle, or a manifest that does not fit.
    """
    content = _read_manifest(path)
    try:
        text = decode_text(content, str(path / MANIFEST))
        manifest = Manifest.model_validate_json(text)
    except TextFileError as error:
        raise BundleError(str(error)) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        what = first["msg"].removeprefix("Value error, ")
        raise BundleError(": ".join(filter(None, (f"{path / MANIFEST}", where, what)))) from None
    except Exception as error:  # the decoder's, of any type
        reason = reason_of(error)
        raise BundleError(f"{path / MANIFEST}: expected a manifest, got: {reason}") from None
    if not manifest.digest:
        raise BundleError(f"{path / MANIFEST}: digest: expected a SHA-256, got none")
    return manifest


def _read_manifest(path: Path) -> bytes:
    try:
        with open_regular(path / MANIFEST) as file:
            text = file.read(_MAX_MANIFEST_BYTES + 1)
    except NotRegularFile:
        raise BundleError(f"{path / MANIFEST}: expected a regular file, got none") from None
    except OSError as error:
        raise BundleError(
            f"{path}: expected a bundle, got no {MANIFEST} ({error.strerror})"
        ) from None
    if len(text) > _MAX_MANIFEST_BYTES:
        raise BundleError(
            f"{path / MANIFEST}: expected at most {_MAX_MANIFEST_BYTES} bytes, got more"
        )
    return text


def versions(directory: Path) -> list[int]:
    """Return the versions of a bundle in a repository, given the bundle's folder, lowest first."""
    if not directory.is_dir():
        return []
    return sorted(int(d.name) for d in directory.iterdir() if re.fullmatch(r"[1-9][0-9]*", d.name))


def check_hashes(bundle: Bundle, names: Iterable[str] | None = None) -> None:
    """Compare the named files, by default all, with their SHA-256.

    Raises:
        BundleError: the first file that differs.
    """
    _expect_hashes(bundle, bundle.manifest.files if names is None else names)


def _expect_hashes(bundle: Bundle, names: Iterable[str]) -> None:
    names = list(names)
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        for name, got in zip(names, pool.map(sha256, map(bundle.file, names)), strict=True):
            wanted = bundle.manifest.files[name].sha256
            if got != wanted:
                raise BundleError(f"{bundle.file(name)}: expected SHA-256 {wanted}, got {got}")


def load_tensors(bundle: Bundle) -> dict[str, Array]:
    """Return every tensor by name, as read-only views of `weights.bin`; bfloat16 as uint16."""
    return map_tensors(bundle.file(WEIGHTS), bundle.manifest.tensors)


def map_tensors(path: Path, table: Sequence[StoredTensor]) -> dict[str, Array]:
    """Return the tensors of a table by name, as read-only views of the file.

    Raises:
        BundleError: a tensor ends after the file.
    """
    if not table:
        return {}
    size = path.stat().st_size
    for tensor in table:
        if tensor.offset + tensor.num_bytes > size:
            raise BundleError(
                f"{path}: expected {tensor.name} to end within {size} bytes, "
                f"got {tensor.offset + tensor.num_bytes}"
            )
    mapped = np.memmap(path, dtype=np.uint8, mode="r")
    return {
        t.name: mapped[t.offset : t.offset + t.num_bytes].view(t.stored_dtype).reshape(t.shape)
        for t in table
    }


def sha256(path: Path) -> str:
    if not path.stat().st_size:  # an empty file cannot be mapped
        return hashlib.sha256().hexdigest()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        mapped.madvise(mmap.MADV_SEQUENTIAL)
        return hashlib.sha256(mapped).hexdigest()


def _expect_file(path: Path, wanted: File) -> None:
    """Raise BundleError unless it is a file of that size, or a link to one.

    Model hubs and mounted volumes make links; the hash of the content says if it is the right one.
    """
    if not path.is_file():
        raise BundleError(f"{path}: expected a regular file, got none")
    size = path.stat().st_size
    if size != wanted.size:
        raise BundleError(f"{path}: expected {wanted.size} bytes, got {size}")
