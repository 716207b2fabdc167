"""Uploads a bundle as a new version of a store, where it appears whole or not at all.

`bundle.json` comes last, as no reader takes a folder without it for a version. An upload that was
cut leaves files without it, which the next upload of the version writes again. `hsoftmax export`
calls this module.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hsoftmax.bundle import MANIFEST

from .errors import ObjectMissing, StoreError, UrlError, store_errors
from .objects import ObjectStore, exists
from .url import StoreUrl
from .versions import VERSION

CLAIM = ".uploading"  # an object of the version while it is uploaded


def expect_new(url: StoreUrl, *, has_version: bool) -> None:
    """Raise UrlError if the store has this version, or any version if the caller named none.

    Raises StoreError if it cannot be read.
    """
    existing = _versions(url.parent)
    if int(url.name) in existing or (existing and not has_version):
        raise UrlError(
            f"{url}: expected a new version, such as {url.parent.join(str(max(existing) + 1))}, "
            "got one that exists"
        )


def upload_bundle(folder: Path, url: StoreUrl) -> None:
    """Upload the files of a bundle to the address of its version, which has none yet.

    Raises:
        StoreError: the store does not take a file, or another upload has made this version or is
            making it.
    """
    if url.scheme == "file":
        with store_errors(url):
            Path(f"/{url.path}").mkdir(parents=True, exist_ok=True)
    store = ObjectStore(url)
    with _claimed(store):
        if exists(store, MANIFEST):
            raise StoreError(f"{url}: expected a new version, got one that exists")
        for file in sorted(folder.iterdir()):
            if file.name != MANIFEST:
                store.write(file.name, file)
        _write_manifest(store, (folder / MANIFEST).read_bytes())


def _versions(model: StoreUrl) -> set[int]:
    """The versions of a model that have a manifest."""
    try:
        paths = [one.path.split("/") for one in ObjectStore(model).list_objects()]
    except ObjectMissing:
        if model.scheme != "file":  # the bucket is missing
            raise
        return set()
    return {int(p[0]) for p in paths if p[1:] == [MANIFEST] and VERSION.fullmatch(p[0])}


@contextmanager
def _claimed(store: ObjectStore) -> Iterator[None]:
    """Keep other uploads of the version away: they would mix their files with these."""
    try:
        store.write(CLAIM, b"", new=True)
    except StoreError:
        if not exists(store, CLAIM):
            raise
        raise StoreError(
            f"{store.url}: expected no other upload of this version, got {CLAIM} in it: if that "
            "upload has ended, delete this object"
        ) from None
    try:
        yield
    finally:
        with suppress(StoreError):  # a key may write and not delete; readers ignore the object
            store.delete([CLAIM])


def _write_manifest(store: ObjectStore, content: bytes) -> None:
    """Make the version visible. An error after the store has taken the manifest is none."""
    try:
        store.write(MANIFEST, content, new=True)
    except StoreError:
        if not exists(store, MANIFEST) or store.read(MANIFEST, len(content)) != content:
            raise
