"""Lists, reads and writes objects of a store by the library obstore.

A file is read in pieces, several at a time, each with its own timeout and retries, so that a store
that hangs or drips ends a download and never blocks it for good.
"""

import mmap
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import obstore
from obstore.store import AzureStore, GCSStore, HTTPStore, LocalStore, S3Store

from .errors import ObjectMissing, StoreError, store_errors
from .url import StoreUrl

_PIECE_BYTES = 8 << 20
_PIECES_AT_A_TIME = 4
_PIECE_TIMEOUT = timedelta(seconds=30)  # 280 kB/s is the slowest that is read
_RETRY: Any = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {
        "init_backoff": timedelta(milliseconds=200),
        "max_backoff": timedelta(seconds=2),
        "base": 2,
    },
}
_SHORT_TIMEOUT = timedelta(seconds=5)
_NO_RETRY: Any = {"max_retries": 0, "retry_timeout": _SHORT_TIMEOUT}

Store = AzureStore | GCSStore | HTTPStore | LocalStore | S3Store


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object of a store. Two are equal as long as it has not changed.

    Attributes:
        path: relative to the address of the store
        tag: the store's mark of the content, or the time of its last change
    """

    path: str
    size: int
    tag: str


class ObjectStore:
    """The objects below one address; if it is not patient, a store that hangs fails in seconds.

    `timeout` is that of one request, if it is not that of a piece.
    """

    def __init__(
        self, url: StoreUrl, *, is_patient: bool = True, timeout: timedelta | None = None
    ) -> None:
        self.url = url
        self._is_patient = is_patient
        self._timeout = timeout or (_PIECE_TIMEOUT if is_patient else _SHORT_TIMEOUT)

    @cached_property
    def _store(self) -> Store:
        """The library's store, opened at the first use: a mounted folder may not be there yet."""
        with store_errors(self.url):
            return _open(self.url, self._is_patient, self._timeout)

    def list_objects(self) -> list[StoredObject]:
        """Every object below the address. Raises StoreError."""
        with store_errors(self.url):
            return [_described(one) for page in obstore.list(self._store) for one in page]

    def head(self, path: str) -> StoredObject:
        """One object, without its content. Raises StoreError."""
        with store_errors(self.url.join(path)):
            return _described(obstore.head(self._store, path))

    def read(self, path: str, max_bytes: int) -> bytes:
        """The content of a small object. Raises StoreError."""
        size = self.head(path).size
        if size > max_bytes:
            raise StoreError(
                f"{self.url.join(path)}: expected at most {max_bytes} bytes, got {size}"
            )
        with store_errors(self.url.join(path)):
            return bytes(obstore.get(self._store, path).bytes())

    def pieces(self, path: str, size: int) -> Iterator[bytes]:
        """The content in order, a few pieces ahead of the reader. Raises StoreError."""
        if size <= _PIECE_BYTES:
            yield self._whole(path, size)
            return
        with ThreadPoolExecutor(_PIECES_AT_A_TIME) as pool:
            running: deque[Future[bytes]] = deque()
            for start in range(0, size, _PIECE_BYTES):
                if len(running) == _PIECES_AT_A_TIME:
                    yield running.popleft().result()
                end = min(size, start + _PIECE_BYTES)
                running.append(pool.submit(self._piece, path, start, end))
            while running:
                yield running.popleft().result()

    def write(self, path: str, content: bytes | Path, *, new: bool = False) -> None:
        """Write an object, which appears whole or not at all; `new`: refuse to replace one.

        Raises:
            ObjectExists: `new`, and there is one.
            StoreError: the store does not take it.
        """
        with store_errors(self.url.join(path)):
            if not new:
                obstore.put(self._store, path, content)
                return
            with _mapped(content) as data:  # the library refuses parts of an object that is new
                obstore.put(self._store, path, data, mode="create", use_multipart=False)

    def delete(self, paths: list[str]) -> None:
        """Remove objects."""
        with store_errors(self.url):
            obstore.delete(self._store, paths)

    def _whole(self, path: str, size: int) -> bytes:
        """The content of a small object, which is not read if it has become larger."""
        with store_errors(self.url.join(path)):
            result = obstore.get(self._store, path)
            if (got := result.meta["size"]) > size:
                raise StoreError(f"{self.url.join(path)}: expected {size} bytes, got {got}")
            return bytes(result.bytes())

    def _piece(self, path: str, start: int, end: int) -> bytes:
        with store_errors(self.url.join(path)):
            return bytes(obstore.get_range(self._store, path, start=start, end=end))


def exists(store: ObjectStore, path: str) -> bool:
    """True if there is an object of this path."""
    try:
        store.head(path)
    except ObjectMissing:
        return False
    return True


@contextmanager
def _mapped(content: bytes | Path) -> Iterator[bytes | memoryview]:
    """The content; that of a file is mapped, so that a large one does not fill the memory."""
    if isinstance(content, bytes) or not content.stat().st_size:
        yield content if isinstance(content, bytes) else b""
        return
    with content.open("rb") as file:
        yield memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _open(url: StoreUrl, is_patient: bool, timeout: timedelta) -> Store:
    options: Any = {
        "connect_timeout": timedelta(seconds=5),
        "timeout": timeout,
        "allow_http": url.scheme == "http" or _allows_http(url.scheme),
    }
    common: dict[str, Any] = {
        "client_options": options,
        "retry_config": _RETRY if is_patient else _NO_RETRY,
    }
    makers: dict[str, Callable[[], Store]] = {
        "s3": lambda: S3Store(url.place, prefix=url.path or None, **common),
        "gs": lambda: GCSStore(url.place, prefix=url.path or None, **common),
        "az": lambda: AzureStore(url.place, prefix=url.path or None, **common),
        "https": lambda: HTTPStore(str(url), **common),
        "http": lambda: HTTPStore(str(url), **common),
        "file": lambda: LocalStore(f"/{url.path}"),
    }
    return makers[url.scheme]()


def _allows_http(scheme: str) -> bool:
    """True if the environment allows an endpoint without TLS; options given hide its variables."""
    variables = {"s3": "AWS_ALLOW_HTTP", "az": "AZURE_ALLOW_HTTP", "gs": "GOOGLE_ALLOW_HTTP"}
    emulator = scheme == "az" and os.environ.get("AZURE_STORAGE_USE_EMULATOR", "").lower() == "true"
    return emulator or os.environ.get(variables.get(scheme, ""), "").lower() in ("true", "1")


def _described(meta: Any) -> StoredObject:  # noqa: ANN401  a typed dict of the library's stubs
    tag = meta["e_tag"] or meta["last_modified"].isoformat()
    return StoredObject(meta["path"], meta["size"], tag)
