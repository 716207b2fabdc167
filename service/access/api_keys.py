"""The API keys and the admin key that are valid now. Only hashes of them are held in memory."""

import hashlib
import os

from hsoftmax.bundle import UTF8_MARK
from hsoftmax.service.logging import Log
from hsoftmax.service.settings import Settings

from .api_key import ADMIN_KEY, ApiKey
from .key_entries import Keys, parse_plain, sha256
from .key_file import KeyFile

_MARK = UTF8_MARK.decode()


class ApiKeys:
    """The keys of the settings and of the key file.

    A key is found by a hash that is keyed with random bytes of this process. So the time of a
    look-up says nothing about the stored keys, and it does not grow with their number.

    Attributes:
        required: True if requests need an API key
    """

    def __init__(self, settings: Settings, log: Log) -> None:
        listed = settings.api_keys.get_secret_value() if settings.api_keys else ""
        admin = settings.admin_key.get_secret_value() if settings.admin_key else ""
        # A variable that was filled from a file may have the file's byte order mark.
        self._listed = parse_plain(listed.removeprefix(_MARK).split(","))
        self._admin = dict.fromkeys(parse_plain([admin.removeprefix(_MARK)]), ADMIN_KEY)
        self._file = (
            None if settings.api_keys_file is None else KeyFile(settings.api_keys_file, log)
        )
        self.required = settings.api_keys is not None or self._file is not None
        self._random = os.urandom(32)
        self._from_file: Keys = {}
        self._index = self._build_index()

    @property
    def has_admin(self) -> bool:
        """Return True if a key has the scope `admin`."""
        self._refresh()
        return any("admin" in key.scopes for key in self._index.values())

    def find(self, secret: str) -> ApiKey | None:
        """Return the API key or the admin key of this secret, or None if it is not valid."""
        self._refresh()
        return self._index.get(self._keyed(sha256(secret)))

    def _refresh(self) -> None:
        if self._file is not None and (keys := self._file.keys()) is not self._from_file:
            self._from_file = keys
            self._index = self._build_index()

    def _build_index(self) -> dict[bytes, ApiKey]:
        """Index all keys. A secret that several places have is the admin key, else the file's."""
        every = {**self._listed, **self._from_file, **self._admin}
        return {self._keyed(secret): key for secret, key in every.items()}

    def _keyed(self, secret_hash: bytes) -> bytes:
        return hashlib.blake2b(secret_hash, key=self._random, digest_size=32).digest()
