"""The page at / and its files under /page/.

The files need no key, so they must hold no data. The headers forbid the page to load anything from
other servers, and other sites to show it in a frame. A browser keeps each file, and asks by its
ETag whether it is still the same.
"""

from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import Response

from hsoftmax.service.errors import NotFound
from hsoftmax.service.page import FILE_TYPES, INDEX

CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "object-src 'none'",
        "require-trusted-types-for 'script'",  # no text becomes HTML or a script
    )
)
_HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}

page_routes = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class PageFile:
    """One file of the page.

    Attributes:
        etag: weak, as a compressed response has the same one
    """

    content: bytes
    content_type: str
    etag: str


@page_routes.get("/")
async def show_page(request: Request) -> Response:
    return _respond(request, page_file(INDEX))


@page_routes.get("/page/{name}")
async def show_page_file(request: Request, name: str) -> Response:
    if name not in FILE_TYPES or name == INDEX:
        raise NotFound("there is no such file of the page here: see /")
    return _respond(request, page_file(name))


@cache
def page_file(name: str) -> PageFile:
    """Read a file of the page, once."""
    content = files("hsoftmax.service.page").joinpath(name).read_bytes()
    return PageFile(content, FILE_TYPES[name], f'W/"{sha256(content).hexdigest()[:32]}"')


def _respond(request: Request, file: PageFile) -> Response:
    """Return the file, or 304 if the client has it."""
    headers = {**_HEADERS, "etag": file.etag}
    if _has(request.headers.get("if-none-match", ""), file.etag):
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.content_type, headers=headers)


def _has(if_none_match: str, etag: str) -> bool:
    """True if the header names the ETag; strong and weak ones are compared alike (RFC 9110)."""
    known = (one.strip().removeprefix("W/") for one in if_none_match.split(","))
    return any(one in ("*", etag.removeprefix("W/")) for one in known)
