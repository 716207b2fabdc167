"""Writes a file as a new object, which never replaces one. Jobs of the service call it.

The whole file is one request, as stores have no condition on an object that is written in parts. So
it appears whole or not at all. An object with the same content counts as written: an earlier try
has written it, of which the answer was lost or after which the process ended.
"""

from datetime import timedelta
from pathlib import Path

from .errors import ObjectExists, ObjectMissing, StoreError
from .objects import ObjectStore
from .url import StoreUrl

MAX_BYTES = 5000 << 20  # of one request, the smallest limit of a store: Azure's
_MIN_BYTES_PER_S = 2e6  # the slowest transfer that is waited for
_MIN_TIMEOUT_S = 30.0


def create_object(url: StoreUrl, file: Path) -> None:
    """Write the file, or find that the object there has its content.

    Raises:
        ObjectExists: another object is there, which stays as it is.
        StoreError: the store does not take it.
    """
    size = file.stat().st_size
    if size > MAX_BYTES:
        raise StoreError(f"{url}: expected at most {MAX_BYTES} bytes in one object, got {size}")
    timeout = timedelta(seconds=max(_MIN_TIMEOUT_S, size / _MIN_BYTES_PER_S))
    store = ObjectStore(url.parent, timeout=timeout)
    try:
        store.write(url.name, file, new=True)
    except StoreError as error:
        if not _is_equal(store, url.name, file):
            if isinstance(error, ObjectExists):
                raise ObjectExists(f"{url}: expected none yet, got another object") from None
            raise


def _is_equal(store: ObjectStore, name: str, file: Path) -> bool:
    """True if there is an object with the content of the file. Raises StoreError."""
    size = file.stat().st_size
    try:
        if store.head(name).size != size:
            return False
    except ObjectMissing:
        return False
    with file.open("rb") as ours:
        return all(ours.read(len(piece)) == piece for piece in store.pieces(name, size))
