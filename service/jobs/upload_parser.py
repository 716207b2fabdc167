"""Parses the multipart body of POST /v1/files while it arrives, and writes its file to the disk.

The route for files calls `receive_file`. At most a megabyte is in memory, the size limits hold
while the body arrives, and the file is synced to the disk before it gets a row.
"""

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from python_multipart.multipart import MultipartParser, parse_options_header

from hsoftmax.models.decoder_errors import decoding
from hsoftmax.scoring import EXTENSIONS
from hsoftmax.service.errors import (
    InvalidQuery,
    SlowBody,
    StorageFull,
    TooLarge,
    Unreadable,
    UnsupportedMediaType,
)

from .expires_after import expiry_of_form
from .file_store import StoredFile
from .reserve import NO_ROOM
from .state_dir import StateDir

MAX_FORM_OVERHEAD_BYTES = 2**16  # of a body, besides its file

_WRITE_BYTES = 2**20  # collected before one write
_PARSE_BYTES = 2**16  # parsed in one call, which bounds the events that it collects
_MAX_FIELD_BYTES = 1024
_MAX_HEADER_BYTES = 2**13  # of the name or of the value of one header of a part
_MAX_NAME_CHARS = 200
_FIELDS = frozenset({"file", "purpose", "expires_after[anchor]", "expires_after[seconds]"})
# The formats of files without an extension, by their first bytes; others are lines of JSON.
_FIRST_BYTES = {b"PAR1": ".parquet", b"ARROW1": ".arrow", b"\xff\xff\xff\xff": ".arrow",
                b"\x93NUMPY": ".npy"}  # fmt: skip
_LINES = ".jsonl"


@dataclass(slots=True)
class _Part:
    """The part of the body that is being parsed."""

    disposition: bytes = b""
    name: str = ""
    filename: str | None = None
    value: bytearray = field(default_factory=bytearray)


class UploadParser:
    """Parser of one body. It keeps the fields in memory and writes the file to `path`."""

    def __init__(self, boundary: bytes, path: Path, max_bytes: int) -> None:
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.size = 0
        self._complete = False
        self._max_bytes = max_bytes
        self._file: BinaryIO = path.open("xb")
        self._part = _Part()
        self._header: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._events: list[Callable[[], None]] = []
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._later(self._on_part_begin),
                "on_header_field": self._later_with_data(partial(self._on_header, 0)),
                "on_header_value": self._later_with_data(partial(self._on_header, 1)),
                "on_header_end": self._later(self._on_header_end),
                "on_headers_finished": self._later(self._on_headers_finished),
                "on_part_data": self._later_with_data(self._on_part_data),
                "on_part_end": self._later(self._on_part_end),
                "on_end": self._later(self._on_end),
            },
        )

    def write(self, content: bytes) -> None:
        """Parse the next bytes of the body. Raises Unreadable, TooLarge, InvalidQuery, OSError.

        The parser only collects its events; they are handled after its call, outside the boundary.
        """
        for start in range(0, len(content), _PARSE_BYTES):
            with decoding(_not_multipart):
                self._parser.write(content[start : start + _PARSE_BYTES])
            events, self._events = self._events, []
            for handle in events:
                handle()

    def expect_complete(self) -> None:
        """Raise Unreadable if the body ended before its closing boundary."""
        if not self._complete:
            raise Unreadable("body: expected its closing boundary, got its end before that")

    def sync(self) -> None:
        """Flush the file and sync it to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def _later(self, handle: Callable[[], None]) -> Callable[[], None]:
        return lambda: self._events.append(handle)

    def _later_with_data(
        self, handle: Callable[[bytes], None]
    ) -> Callable[[bytes, int, int], None]:
        return lambda data, start, end: self._events.append(partial(handle, data[start:end]))

    def _on_part_begin(self) -> None:
        self._part = _Part()

    def _on_header(self, part: int, data: bytes) -> None:
        if len(self._header[part]) + len(data) > _MAX_HEADER_BYTES:
            raise TooLarge(f"body: expected headers of at most {_MAX_HEADER_BYTES} bytes, got more")
        self._header[part].extend(data)

    def _on_header_end(self) -> None:
        name, value = self._header
        if bytes(name).lower() == b"content-disposition":
            self._part.disposition = bytes(value)
        self._header = (bytearray(), bytearray())

    def _on_headers_finished(self) -> None:
        with decoding(_not_multipart):
            _, options = parse_options_header(self._part.disposition)
        self._part.name = options.get(b"name", b"").decode("utf-8", "replace")
        if b"filename" in options:
            self._part.filename = options[b"filename"].decode("utf-8", "replace")
        if self._part.name not in _FIELDS:
            raise InvalidQuery(
                f"body: expected file, purpose and expires_after, got {self._part.name[:60]!r}"
            )
        if self._part.name == "file":
            if self.filename is not None:
                raise InvalidQuery("file: expected one, got several")
            self.filename = safe_name(self._part.filename or "")

    def _on_part_data(self, data: bytes) -> None:
        if self._part.name == "file":
            self.size += len(data)
            if self.size > self._max_bytes:
                raise TooLarge(f"file: expected at most {self._max_bytes} bytes, got more")
            self._file.write(data)
        elif len(self._part.value) + len(data) > _MAX_FIELD_BYTES:
            raise TooLarge(
                f"{self._part.name}: expected at most {_MAX_FIELD_BYTES} bytes, got more"
            )
        else:
            self._part.value += data

    def _on_part_end(self) -> None:
        if self._part.name != "file":
            self.fields[self._part.name] = self._part.value.decode("utf-8", "replace")

    def _on_end(self) -> None:
        self._complete = True


async def receive_file(
    body: AsyncIterator[bytes],
    content_type: str,
    state_dir: StateDir,
    *,
    max_bytes: int,
    timeout: float,
) -> StoredFile:
    """Receive the body and store its file on the disk. The caller inserts the row.

    Raises:
        UnsupportedMediaType: the body is not multipart/form-data.
        TooLarge, StorageFull, SlowBody, Unreadable, InvalidQuery: the body was refused.
    """
    id = f"file-{secrets.token_hex(12)}"
    temporary = state_dir.uploads / id
    boundary = _boundary(content_type)
    with _disk_full_is_storage_full(), _temporary_upload(boundary, temporary, max_bytes) as upload:
        await _receive(upload, body, timeout, max_bytes + MAX_FORM_OVERHEAD_BYTES)
        upload.expect_complete()
        filename, now = _expect_batch(upload), int(time.time())
        seconds = expiry_of_form(upload.fields)
        await asyncio.to_thread(upload.sync)
        extension = PurePosixPath(filename).suffix or _recognise(temporary)
        path = state_dir.files / f"{id}{extension}"
        await asyncio.to_thread(_move_into_place, temporary, path)
    return StoredFile(
        id=id,
        purpose="batch",
        filename=filename,
        bytes=upload.size,
        created_at=now,
        path=str(path.relative_to(state_dir.folder)),
        expires_at=None if seconds is None else now + seconds,
    )


@contextmanager
def _disk_full_is_storage_full() -> Iterator[None]:
    """Turn the operating system's "disk full" errors into StorageFull."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise StorageFull("file: expected room for it on the disk, got none") from None


@contextmanager
def _temporary_upload(boundary: bytes, path: Path, max_bytes: int) -> Iterator[UploadParser]:
    """Close the upload and remove its temporary file, unless it was moved into place."""
    upload = UploadParser(boundary, path, max_bytes)
    try:
        yield upload
    finally:
        try:
            path.unlink(missing_ok=True)
        finally:
            upload.close()  # this may report a full disk a second time


def safe_name(name: str) -> str:
    """Return the last part of a file name or path, with its extension in lower case.

    A name without a dot is that of a file whose format its content says: OpenAI's clients call
    bytes `upload` or `unknown_file`.

    Raises:
        InvalidQuery: the extension is not one of the known formats.
    """
    basename = name.replace("\\", "/").rpartition("/")[2]
    printable = "".join(c for c in basename if c.isprintable()).strip()
    if printable and "." not in printable:
        return printable[:_MAX_NAME_CHARS]
    extension = PurePosixPath(printable).suffix
    stem = printable.removesuffix(extension)
    if extension.lower() not in EXTENSIONS:
        known = ", ".join(EXTENSIONS)
        raise InvalidQuery(f"file: expected a name ending in {known}, got {name[-60:]!r}")
    return stem[:_MAX_NAME_CHARS] + extension.lower()


async def _receive(
    upload: UploadParser, body: AsyncIterator[bytes], timeout: float, max_bytes: int
) -> None:
    buffer, size = bytearray(), 0
    while (chunk := await _next_chunk(body, timeout)) is not None:
        size += len(chunk)
        if size > max_bytes:
            raise TooLarge(f"body: expected at most {max_bytes} bytes, got more")
        buffer += chunk
        if len(buffer) >= _WRITE_BYTES:
            await asyncio.to_thread(upload.write, bytes(buffer))
            buffer.clear()
    await asyncio.to_thread(upload.write, bytes(buffer))


async def _next_chunk(body: AsyncIterator[bytes], timeout: float) -> bytes | None:
    try:
        async with asyncio.timeout(timeout):
            return await anext(body, None)
    except TimeoutError:
        raise SlowBody(f"body: expected more of it within {timeout:g} s") from None


def _expect_batch(upload: UploadParser) -> str:
    """Return the file's name. Raises InvalidQuery without a file or the purpose `batch`."""
    if upload.filename is None:
        raise InvalidQuery("file: expected a file, got none")
    purpose = upload.fields.get("purpose")
    if purpose != "batch":
        got = "none" if purpose is None else repr(purpose[:60])
        raise InvalidQuery(f"purpose: expected 'batch', got {got}")
    return upload.filename


def _not_multipart(_: str) -> Unreadable:
    return Unreadable("body: expected multipart/form-data, which this is not")


def _recognise(path: Path) -> str:
    """Return the extension of the format that the first bytes of a file say."""
    with path.open("rb") as file:
        start = file.read(8)
    known = (extension for first, extension in _FIRST_BYTES.items() if start.startswith(first))
    return next(known, _LINES)


def _boundary(content_type: str) -> bytes:
    with decoding(_not_multipart):
        media_type, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if media_type != b"multipart/form-data" or not 0 < len(boundary) <= 256:
        raise UnsupportedMediaType(
            f"content-type: expected multipart/form-data with a boundary, got {content_type[:60]!r}"
        )
    return boundary


def _move_into_place(temporary: Path, path: Path) -> None:
    temporary.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
