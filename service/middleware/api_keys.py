"""API keys and the admin key, from the settings and from a file. Only hashes are held in memory.

An entry is a plain key, or `sha256:` and the SHA-256 of a key in hexadecimal. A file is UTF-8 with
one entry a line; empty lines and lines that start with # are ignored. The file is read again when
it changes, so keys can be rotated without a restart.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable
from pathlib import Path
from time import monotonic

from hsoftmax.bundle import UTF8_MARK, NotRegularFile, TextFileError, expect_regular, read_lines
from hsoftmax.service.errors import StartError
from hsoftmax.service.logging import Log
from hsoftmax.service.settings import Settings

_HASHED = re.compile(r"sha256:([0-9a-fA-F]{64})")
_CHECK_INTERVAL_S = 1.0
_MARK = UTF8_MARK.decode()

Hashes = tuple[bytes, ...]


class ApiKeys:
    """The keys that are valid now.

    Attributes:
        required: True if requests need an API key
        has_admin: True if there is an admin key
    """

    def __init__(self, settings: Settings, log: Log) -> None:
        listed = settings.api_keys.get_secret_value() if settings.api_keys else ""
        admin = settings.admin_key.get_secret_value() if settings.admin_key else ""
        # A variable that was filled from a file may have the file's byte order mark.
        self._from_settings = parse(listed.removeprefix(_MARK).split(","))
        self._admin = parse([admin.removeprefix(_MARK)])
        self._file = (
            None if settings.api_keys_file is None else KeyFile(settings.api_keys_file, log)
        )
        self.required = settings.api_keys is not None or self._file is not None
        self.has_admin = bool(self._admin)

    def is_valid(self, key: str) -> bool:
        """Return True if the key is an API key or the admin key."""
        from_file = () if self._file is None else self._file.hashes()
        return _matches(key, (*self._from_settings, *from_file, *self._admin))

    def is_admin(self, key: str) -> bool:
        return _matches(key, self._admin)


class KeyFile:
    """A file of keys that is read again when it changes. An unreadable file leaves the old keys."""

    def __init__(self, path: Path, log: Log) -> None:
        self._path = path
        self._log = log
        self._checked_at = monotonic()
        try:
            self._state = self._stat()
            self._hashes = self._read()
        except OSError as error:
            raise StartError(f"api_keys_file: cannot be read: {error.strerror}") from None

    def hashes(self) -> Hashes:
        """Return the hashes of the file. They are at most a second old."""
        if monotonic() - self._checked_at >= _CHECK_INTERVAL_S:
            self._checked_at = monotonic()
            self._reload_if_changed()
        return self._hashes

    def _reload_if_changed(self) -> None:
        try:
            state = self._stat()
            if state == self._state:
                return
            self._hashes = self._read()
        except (OSError, StartError) as error:
            state = ()
            if self._state != state:
                reason = error.strerror if isinstance(error, OSError) else str(error)
                self._log.error("api_keys_unreadable", reason=reason)
        else:
            self._log.info("api_keys_read", keys=len(self._hashes))
        self._state = state

    def _stat(self) -> tuple[int, ...]:
        stat = self._path.stat()
        return stat.st_ino, stat.st_size, stat.st_mtime_ns

    def _read(self) -> Hashes:
        try:
            expect_regular(self._path)
        except NotRegularFile:
            raise StartError("api_keys_file: expected a regular file, got none") from None
        try:
            lines = read_lines(self._path, "api_keys_file")
        except TextFileError as error:
            raise StartError(str(error)) from None
        return parse(line for line in lines if not line.lstrip().startswith("#"))


def parse(entries: Iterable[str]) -> Hashes:
    """Return the hash of each entry that is not blank."""
    return tuple(_hash(entry.strip()) for entry in entries if entry.strip())


def _hash(entry: str) -> bytes:
    if hashed := _HASHED.fullmatch(entry):
        return bytes.fromhex(hashed[1])
    if entry.startswith("sha256:"):
        raise StartError("api keys: expected 64 hexadecimal digits after sha256:")
    return _sha256(entry)


def _matches(key: str, hashes: Hashes) -> bool:
    """Return True if the key has one of the hashes.

    The time does not depend on which hash matches, or on how many of its bytes match.
    """
    key_hash = _sha256(key)
    found = False
    for one in hashes:
        found |= hmac.compare_digest(key_hash, one)
    return found


def _sha256(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
