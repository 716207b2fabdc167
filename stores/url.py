"""Addresses of stores, such as `s3://bucket/models`.

An address has no user, password or query: credentials come from the environment, and an address is
shown in logs.
"""

import re
from dataclasses import dataclass
from difflib import get_close_matches

from .errors import UrlError

SCHEMES = ("s3", "gs", "az", "https", "http", "file")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_PLAIN = re.compile(r"[^\x00-\x20\x7f?#\\]*")
_LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?")
_FORM = "expected s3://BUCKET/PATH, gs://BUCKET/PATH, az://CONTAINER/PATH or https://HOST/PATH"


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """The address of a store or of an object in it.

    Attributes:
        place: bucket, container or host; empty for a mounted folder
        path: without a slash at its start and end
    """

    scheme: str
    place: str
    path: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.place}" + (f"/{self.path}" if self.path else "")

    @property
    def segments(self) -> tuple[str, ...]:
        """The parts of the path."""
        return tuple(self.path.split("/")) if self.path else ()

    @property
    def name(self) -> str:
        """The last part of the path, or the place."""
        return self.segments[-1] if self.path else self.place

    @property
    def parent(self) -> "StoreUrl":
        """The address without the last part of the path."""
        return StoreUrl(self.scheme, self.place, "/".join(self.segments[:-1]))

    def join(self, *parts: str) -> "StoreUrl":
        """The address of an object below this one."""
        return StoreUrl(self.scheme, self.place, "/".join((*self.segments, *parts)))

    def is_within(self, other: "StoreUrl") -> bool:
        """True if this address is the other one, or below it."""
        same = (self.scheme, self.place) == (other.scheme, other.place)
        return same and self.segments[: len(other.segments)] == other.segments


def is_url(text: str) -> bool:
    """True if the text is an address, right or wrong, and no local path."""
    return _URL.match(text) is not None


def parse_url(text: str) -> StoreUrl:
    """Parse an address. Raises UrlError, whose text does not show a password."""
    match = _URL.match(text)
    if match is None:
        raise UrlError(f"{_FORM}, got no scheme")
    scheme = match[1].lower()
    if scheme not in SCHEMES:
        near = get_close_matches(scheme, SCHEMES, 1, cutoff=0.5)
        hint = f": did you mean {near[0]}://?" if near else ""
        raise UrlError(f"{_FORM}, got {scheme[:20]}://{hint}")
    place, _, path = match[2].partition("/")
    if "@" in place or not _PLAIN.fullmatch(match[2]):
        raise UrlError(
            f"{scheme}: expected an address without user, query, space and fragment, got one with: "
            "credentials come from the environment"
        )
    segments = path.strip("/").split("/")
    if any(part in ("", ".", "..") for part in segments) and path.strip("/"):
        raise UrlError(f"{_FORM}, got a path with an empty part or dots")
    if bool(place) == (scheme == "file"):
        raise UrlError(f"{_FORM}, got {scheme}://{place}")
    if scheme == "http" and not _LOOPBACK.fullmatch(place):
        raise UrlError(f"{_FORM}, got http://{place}, which anyone on the way can change")
    return StoreUrl(scheme, place, path.strip("/"))
