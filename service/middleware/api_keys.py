"""Who may ask: API keys and the admin key, held as hashes, from settings and from a file.

An entry is a key as it is, or `sha256:` and its SHA-256 in hexadecimal. A file has one entry a
line; empty lines and lines that start with # do not count. It is read again when it has changed,
which makes a rotation of keys without a restart.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable
from pathlib import Path
from time import monotonic

from hsoftmax.service.errors import StartError
from hsoftmax.service.logging import Log
from hsoftmax.service.settings import Settings

_HASHED = re.compile(r"sha256:([0-9a-fA-F]{64})")
_LOOK_AGAIN = 1.0  # seconds

Hashes = tuple[bytes, ...]


class ApiKeys:
    """The keys that are good now."""

    def __init__(self, settings: Settings, log: Log) -> None:
        listed = settings.api_keys.get_secret_value() if settings.api_keys else ""
        admin = settings.admin_key.get_secret_value() if settings.admin_key else ""
        self._listed = parse(listed.split(","))
        self._admin = parse([admin])
        self._file = (
            None if settings.api_keys_file is None else KeyFile(settings.api_keys_file, log)
        )
        self.closed = settings.api_keys is not None or self._file is not None
        self.has_admin = bool(self._admin)

    def opens(self, key: str) -> bool:
        """Whether a key opens what API keys close; the admin key does, too."""
        filed = () if self._file is None else self._file.hashes()
        return _matches(key, (*self._listed, *filed, *self._admin))

    def is_admin(self, key: str) -> bool:
        return _matches(key, self._admin)


class KeyFile:
    """A file of keys, followed. What cannot be read leaves the keys as they were."""

    def __init__(self, path: Path, log: Log) -> None:
        self._path = path
        self._log = log
        self._looked = monotonic()
        try:
            self._state = self._stat()
            self._hashes = self._read()
        except OSError as error:
            raise StartError(f"api_keys_file: cannot be read: {error.strerror}") from None

    def hashes(self) -> Hashes:
        """Those of the file as it is, or as it was a second ago."""
        if monotonic() - self._looked >= _LOOK_AGAIN:
            self._looked = monotonic()
            self._follow()
        return self._hashes

    def _follow(self) -> None:
        try:
            state = self._stat()
            if state == self._state:
                return
            self._hashes = self._read()
        except (OSError, StartError) as error:
            state = ()
            if self._state != state:
                self._log.error("api_keys_unreadable", reason=type(error).__name__)
        else:
            self._log.info("api_keys_read", keys=len(self._hashes))
        self._state = state

    def _stat(self) -> tuple[int, ...]:
        stat = self._path.stat()
        return stat.st_ino, stat.st_size, stat.st_mtime_ns

    def _read(self) -> Hashes:
        try:
            lines = self._path.read_text("utf-8").splitlines()
        except UnicodeDecodeError:
            raise StartError("api_keys_file: expected UTF-8") from None
        return parse(line for line in lines if not line.lstrip().startswith("#"))


def parse(entries: Iterable[str]) -> Hashes:
    """The hash of each entry that is not blank."""
    return tuple(_hash(entry.strip()) for entry in entries if entry.strip())


def _hash(entry: str) -> bytes:
    if hashed := _HASHED.fullmatch(entry):
        return bytes.fromhex(hashed[1])
    if entry.startswith("sha256:"):
        raise StartError("api keys: expected 64 hexadecimal digits after sha256:")
    return _sha256(entry)


def _matches(key: str, hashes: Hashes) -> bool:
    """Whether the key is one of these, in a time that does not tell which, or how nearly."""
    presented = _sha256(key)
    found = False
    for one in hashes:
        found |= hmac.compare_digest(presented, one)
    return found


def _sha256(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
