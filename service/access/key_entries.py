"""Parses the entries of API keys: the lines of a key file, and the values of the settings.

An entry is a plain key, or `sha256:` and the SHA-256 of a key in hexadecimal. In a file it may also
be a JSON object, which gives the key a name and says what it opens:

    {"name": "search", "sha256": "9f86…", "scopes": ["read", "batch"], "models": ["news-*"]}
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Annotated

import msgspec

from hsoftmax.service.codecs.json import error_message
from hsoftmax.service.errors import StartError

from .api_key import ADMIN, ALL_MODELS, UNNAMED, UNNAMED_KEY, ApiKey, KeyScope

_HASHED = re.compile(r"sha256:([0-9a-fA-F]{64})")
_MAX_NAMES = 1000

Keys = Mapping[bytes, ApiKey]  # by the SHA-256 of the secret

_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
_Rate = Annotated[float, msgspec.Meta(gt=0)]


class _NamedKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: _Name
    key: str | None = None
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-fA-F]{64}$")] | None = None
    scopes: tuple[KeyScope, ...] = ("read",)
    models: tuple[str, ...] = ALL_MODELS
    requests_per_second: _Rate | None = None
    rows_per_second: _Rate | None = None


_DECODER = msgspec.json.Decoder(_NamedKey)


def parse_plain(entries: Iterable[str]) -> Keys:
    """Return the keys of entries without names; blank entries are none.

    Raises:
        StartError: a hash is not 64 hexadecimal digits.
    """
    return {_hash(entry.strip()): UNNAMED_KEY for entry in entries if entry.strip()}


def parse_lines(lines: Iterable[str]) -> Keys:
    """Return the keys of a file; blank lines and lines that start with # are none.

    Raises:
        StartError: a line is no entry, or contradicts an earlier one.
    """
    keys: dict[bytes, ApiKey] = {}
    named: dict[str, ApiKey] = {}
    for number, line in enumerate(lines, 1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        place = f"api_keys_file line {number}"
        secret, key = _parse_named(entry, place) if entry.startswith("{") else _plain(entry, place)
        if keys.setdefault(secret, key) != key:
            raise StartError(f"{place}: expected a key of its own, got that of an earlier line")
        if named.setdefault(key.name, key) != key:
            raise StartError(
                f"{place}: expected the scopes, models and limits of the earlier key "
                f"{key.name!r}, got others"
            )
    if len(named) > _MAX_NAMES:
        raise StartError(f"api_keys_file: expected at most {_MAX_NAMES} names, got {len(named)}")
    return keys


def sha256(secret: str) -> bytes:
    """Return the hash of a key."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def _plain(entry: str, place: str) -> tuple[bytes, ApiKey]:
    try:
        return _hash(entry), UNNAMED_KEY
    except StartError as error:
        raise StartError(f"{place}: {error}") from None


def _hash(entry: str) -> bytes:
    if hashed := _HASHED.fullmatch(entry):
        return bytes.fromhex(hashed[1])
    if entry.startswith("sha256:"):
        raise StartError("api keys: expected 64 hexadecimal digits after sha256:")
    return sha256(entry)


def _parse_named(entry: str, place: str) -> tuple[bytes, ApiKey]:
    one = _decode_named(entry, place)
    secret = _named_secret(one, place)
    if one.name in (UNNAMED, ADMIN):
        raise StartError(f"{place}: name: expected another than {UNNAMED} and {ADMIN}")
    return secret, ApiKey(
        one.name, frozenset(one.scopes), one.models, one.requests_per_second, one.rows_per_second
    )


def _decode_named(entry: str, place: str) -> _NamedKey:
    try:
        return _DECODER.decode(entry)
    except msgspec.ValidationError as error:
        raise StartError(f"{place}: {error_message(str(error), _NamedKey)}") from None
    except msgspec.DecodeError:  # its message may have a part of the key
        raise StartError(f"{place}: expected a JSON object in one line") from None


def _named_secret(one: _NamedKey, place: str) -> bytes:
    """Return the hash of the key, which the entry has as it is or as its SHA-256."""
    if (one.key is None) == (one.sha256 is None):
        got = "none" if one.key is None else "both"
        raise StartError(f"{place}: expected key or sha256, got {got}")
    if one.key is not None and not one.key.strip():
        raise StartError(f"{place}: key: expected a text, got a blank one")
    return sha256(one.key.strip()) if one.key else bytes.fromhex(one.sha256 or "")
