"""Sends requests with httpx2, which the extra `client` installs."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import httpx2

from .call import Request
from .errors import ClientError, InvalidApiKey

NoAnswer = httpx2.RequestError
TimedOut = httpx2.TimeoutException  # a kind of NoAnswer: a second try would take as long

Answer = tuple[int, Mapping[str, str], bytes]


def sync_http(
    base_url: str, api_key: str | None, timeout_s: float, transport: httpx2.BaseTransport | None
) -> httpx2.Client:
    return httpx2.Client(
        base_url=base_url, headers=_headers(api_key), timeout=timeout_s, transport=transport
    )


def async_http(
    base_url: str,
    api_key: str | None,
    timeout_s: float,
    transport: httpx2.AsyncBaseTransport | None,
) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        base_url=base_url, headers=_headers(api_key), timeout=timeout_s, transport=transport
    )


def send_sync(http: httpx2.Client, request: Request) -> Answer:
    """Sends a request. Raises NoAnswer."""
    with _form(request) as form, http.stream(**_arguments(request), **form) as response:
        if request.save_to is None or response.status_code >= 300:
            return response.status_code, response.headers, response.read()
        with _replacing(request.save_to) as file:
            for piece in response.iter_bytes():
                file.write(piece)
        return response.status_code, response.headers, b""


async def send_async(http: httpx2.AsyncClient, request: Request) -> Answer:
    """Sends a request. Raises NoAnswer."""
    with _form(request) as form:
        async with http.stream(**_arguments(request), **form) as response:
            if request.save_to is None or response.status_code >= 300:
                return response.status_code, response.headers, await response.aread()
            with _replacing(request.save_to) as file:
                async for piece in response.aiter_bytes():
                    await asyncio.to_thread(file.write, piece)
            return response.status_code, response.headers, b""


def _arguments(request: Request) -> dict[str, Any]:
    return {
        "method": request.method,
        "url": request.path,
        "params": list(request.params),
        "headers": dict(request.headers),
        "content": request.content,
    }


@contextmanager
def _form(request: Request) -> Iterator[dict[str, Any]]:
    """Yields the form with the file that is uploaded, if there is one."""
    if request.upload is None:
        yield {}
        return
    with request.upload.open("rb") as file:
        yield {"files": {"file": (request.upload.name, file)}, "data": {"purpose": "batch"}}


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """Yields a file that is at `path` only once all of it is written."""
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def failure(base_url: str, error: httpx2.RequestError) -> ClientError:
    """Returns the error for a request without an answer."""
    return ClientError(f"{base_url}: expected an answer, got: {error or type(error).__name__}")


def _headers(api_key: str | None) -> dict[str, str]:
    if not api_key:
        return {}
    _expect_ascii(api_key)
    return {"authorization": f"Bearer {api_key}"}


def _expect_ascii(api_key: str) -> None:
    """Raises InvalidApiKey without the key itself, as errors are printed and logged."""
    for place, character in enumerate(api_key, 1):
        if not (character.isascii() and character.isprintable()):
            got = "a control character" if character.isascii() else "one beyond ASCII"
            raise InvalidApiKey(
                f"api_key: expected printable ASCII characters, as HTTP headers have, got {got} at "
                f"place {place} of {len(api_key)}: give the key as the service lists it, or have "
                "one of ASCII characters made"
            )
