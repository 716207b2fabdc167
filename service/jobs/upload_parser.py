"""POST /v1/files: a multipart body as it arrives, its file straight onto the disk.

No more than a megabyte is held, the file is bounded while it is counted, and it is synced before
anybody can know of it.
"""

import asyncio
import errno
import os
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from hsoftmax.scoring import EXTENSIONS
from hsoftmax.service.errors import (
    InvalidQuery,
    SlowBody,
    StorageFull,
    TooLarge,
    Unreadable,
    UnsupportedMediaType,
)

from .file_store import StoredFile
from .state_dir import StateDir

AROUND = 2**16  # bytes of a body that are not its file's

_AT_ONCE = 2**20  # bytes that are written together
_LONGEST_FIELD = 1024
_LONGEST_NAME = 200


@dataclass(slots=True)
class _Part:
    """One part of the body, on its way."""

    disposition: bytes = b""
    name: str = ""
    filename: str | None = None
    value: bytearray = field(default_factory=bytearray)


class Upload:
    """One body: fields in memory, the one file at `path`; closed once."""

    def __init__(self, boundary: bytes, path: Path, most_bytes: int) -> None:
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.size = 0
        self._whole = False
        self._most = most_bytes
        self._file: BinaryIO = path.open("xb")
        self._part = _Part()
        self._header: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_end,
                "on_part_data": self._data,
                "on_part_end": self._end,
                "on_end": self._all,
            },
        )

    def write(self, content: bytes) -> None:
        """Some more of the body. Raises Unreadable, TooLarge, InvalidQuery, OSError."""
        try:
            self._parser.write(content)
        except FormParserError:
            raise Unreadable("body: expected multipart/form-data, which this is not") from None

    def expect_whole(self) -> None:
        """Raise Unreadable if the body ended too early."""
        if not self._whole:
            raise Unreadable("body: expected its closing boundary, got its end before that")

    def settle(self) -> None:
        """Let all of it be on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def _begin(self) -> None:
        self._part = _Part()

    def _header_end(self) -> None:
        name, value = self._header
        if bytes(name).lower() == b"content-disposition":
            self._part.disposition = bytes(value)
        self._header = (bytearray(), bytearray())

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._part.disposition)
        self._part.name = options.get(b"name", b"").decode("utf-8", "replace")
        if b"filename" in options:
            self._part.filename = options[b"filename"].decode("utf-8", "replace")
        if self._part.name not in ("file", "purpose"):
            raise InvalidQuery(f"body: expected file and purpose, got {self._part.name[:60]!r}")
        if self._part.name == "file":
            if self.filename is not None:
                raise InvalidQuery("file: expected one, got several")
            self.filename = safe_name(self._part.filename or "")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._part.name == "file":
            self.size += end - start
            if self.size > self._most:
                raise TooLarge(f"file: expected at most {self._most} bytes, got more")
            self._file.write(data[start:end])
        elif len(self._part.value) + end - start > _LONGEST_FIELD:
            raise TooLarge(f"{self._part.name}: expected at most {_LONGEST_FIELD} bytes, got more")
        else:
            self._part.value += data[start:end]

    def _end(self) -> None:
        if self._part.name != "file":
            self.fields[self._part.name] = self._part.value.decode("utf-8", "replace")

    def _all(self) -> None:
        self._whole = True


async def receive_file(
    body: AsyncIterator[bytes],
    content_type: str,
    place: StateDir,
    *,
    most_bytes: int,
    patience: float,
) -> StoredFile:
    """The file, in its place and on the disk, but as yet in no row.

    Raises:
        UnsupportedMediaType: another kind of body.
        TooLarge, StorageFull, SlowBody, Unreadable, InvalidQuery: what is wrong with it.
    """
    id = f"file-{secrets.token_hex(12)}"
    aside = place.uploads / id
    upload = Upload(_boundary(content_type), aside, most_bytes)
    with _room_expected(), _aside(upload, aside):
        await _fill(upload, body, patience, most_bytes + AROUND)
        upload.expect_whole()
        filename = _expect_batch(upload)
        await asyncio.to_thread(upload.settle)
        path = place.files / f"{id}{PurePosixPath(filename).suffix}"
        await asyncio.to_thread(_put, aside, path)
    relative = str(path.relative_to(place.folder))
    return StoredFile(id, "batch", filename, upload.size, int(time.time()), relative)


@contextmanager
def _room_expected() -> Iterator[None]:
    """Raises StorageFull where the disk says that it is."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StorageFull("file: expected room for it on the disk, got none") from None


@contextmanager
def _aside(upload: Upload, path: Path) -> Iterator[None]:
    """While it arrives; what has not found its place by then is gone."""
    try:
        yield
    finally:
        try:
            path.unlink(missing_ok=True)
        finally:
            upload.close()  # which says once more that the disk is full


def safe_name(name: str) -> str:
    """The last part of what may be a path, with a known extension in lower case.

    Raises InvalidQuery where there is none.
    """
    last = name.replace("\\", "/").rpartition("/")[2]
    kept = "".join(c for c in last if c.isprintable()).strip()
    extension = PurePosixPath(kept).suffix
    stem = kept.removesuffix(extension)
    if extension.lower() not in EXTENSIONS:
        known = ", ".join(EXTENSIONS)
        raise InvalidQuery(f"file: expected a name ending in {known}, got {name[-60:]!r}")
    return stem[:_LONGEST_NAME] + extension.lower()


async def _fill(
    upload: Upload, body: AsyncIterator[bytes], patience: float, most_bytes: int
) -> None:
    waiting, size = bytearray(), 0
    while (piece := await _next(body, patience)) is not None:
        size += len(piece)
        if size > most_bytes:
            raise TooLarge(f"body: expected at most {most_bytes} bytes, got more")
        waiting += piece
        if len(waiting) >= _AT_ONCE:
            await asyncio.to_thread(upload.write, bytes(waiting))
            waiting.clear()
    await asyncio.to_thread(upload.write, bytes(waiting))


async def _next(body: AsyncIterator[bytes], patience: float) -> bytes | None:
    try:
        async with asyncio.timeout(patience):
            return await anext(body, None)
    except TimeoutError:
        raise SlowBody(f"body: expected more of it within {patience:g} s") from None


def _expect_batch(upload: Upload) -> str:
    """The file's name. Raises InvalidQuery unless there is one, for that purpose."""
    if upload.filename is None:
        raise InvalidQuery("file: expected a file, got none")
    purpose = upload.fields.get("purpose")
    if purpose != "batch":
        got = "none" if purpose is None else repr(purpose[:60])
        raise InvalidQuery(f"purpose: expected 'batch', got {got}")
    return upload.filename


def _boundary(content_type: str) -> bytes:
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 0 < len(boundary) <= 256:
        raise UnsupportedMediaType(
            f"content-type: expected multipart/form-data with a boundary, got {content_type[:60]!r}"
        )
    return boundary


def _put(aside: Path, path: Path) -> None:
    aside.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
