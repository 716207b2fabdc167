"""Finds the versions of bundles in a store. A version exists once it has its `bundle.json`."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from hsoftmax.bundle import MANIFEST

from .errors import ObjectMissing
from .objects import ObjectStore, StoredObject
from .url import StoreUrl

VERSION = re.compile(r"[1-9][0-9]{0,17}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_MAX_EXTRA_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """One version of a bundle in a store.

    Attributes:
        folder: its path relative to the store's address; empty if the address is the bundle
        files: its objects by file name; none are known where the store cannot list
    """

    name: str
    version: int
    folder: str
    manifest: StoredObject
    files: tuple[StoredObject, ...] = ()

    @property
    def key(self) -> str:
        """`<name>/<version>`."""
        return f"{self.name}/{self.version}"

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True, slots=True)
class Listing:
    """The content of a store.

    Attributes:
        extras: small objects beside the versions of a model, by `<name>/<file>`
    """

    versions: tuple[StoredVersion, ...]
    extras: tuple[tuple[str, StoredObject], ...] = ()


def list_versions(store: ObjectStore) -> Listing:
    """List a repository, a model folder or one bundle, as the content is. Raises StoreError."""
    if store.url.scheme in ("http", "https"):
        return Listing((_unlisted(store),))
    objects = store.list_objects()
    by_path = {one.path: one for one in objects}
    if MANIFEST in by_path:
        name, version = _named_by(store.url)
        return Listing((_version(name, version, "", by_path[MANIFEST], objects),))
    nested = [(one.path.split("/"), one) for one in objects]
    if any(len(p) == 2 and VERSION.fullmatch(p[0]) and p[1] == MANIFEST for p, _ in nested):
        nested = [([store.url.name, *p], one) for p, one in nested]
        return _group(nested, prefix="")
    return _group(nested, prefix=None)


def _unlisted(store: ObjectStore) -> StoredVersion:
    """The one bundle at an address of a web server, which has no list of its files."""
    try:
        manifest = store.head(MANIFEST)
    except ObjectMissing:
        raise ObjectMissing(
            f"{store.url}: expected {MANIFEST} there, got none: give the address of one bundle, "
            "as a web server has no list of them"
        ) from None
    return StoredVersion(*_named_by(store.url), "", manifest)


def _named_by(url: StoreUrl) -> tuple[str, int]:
    """Name and version of a bundle by its address; version 1 if that ends with none."""
    if VERSION.fullmatch(url.name) and len(url.segments) > 1:
        return url.segments[-2], int(url.name)
    return url.name, 1


def _group(nested: Iterable[tuple[list[str], StoredObject]], prefix: str | None) -> Listing:
    """Group objects by model and version. With a `prefix` the first part is not in their paths."""
    versions: dict[tuple[str, str], list[StoredObject]] = defaultdict(list)
    extras = []
    for parts, one in nested:
        if not _NAME.fullmatch(parts[0]):
            continue
        if len(parts) == 3 and VERSION.fullmatch(parts[1]):
            versions[parts[0], parts[1]].append(one)
        elif len(parts) == 2 and _NAME.fullmatch(parts[1]) and one.size <= _MAX_EXTRA_BYTES:
            extras.append((f"{parts[0]}/{parts[1]}", one))
    found = []
    for (name, number), files in versions.items():
        folder = number if prefix is not None else f"{name}/{number}"
        manifest = next((one for one in files if one.path == f"{folder}/{MANIFEST}"), None)
        if manifest is not None:
            found.append(_version(name, int(number), folder, manifest, files))
    return Listing(tuple(sorted(found, key=lambda one: (one.name, one.version))), tuple(extras))


def _version(
    name: str, number: int, folder: str, manifest: StoredObject, objects: Iterable[StoredObject]
) -> StoredVersion:
    start = len(folder) + 1 if folder else 0
    files = tuple(StoredObject(one.path[start:], one.size, one.tag) for one in objects)
    return StoredVersion(name, number, folder, manifest, files)
