"""Sends requests with httpx2, which the extra `client` installs."""

from collections.abc import Mapping

import httpx2

from .call import Request
from .errors import ClientError

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
    response = http.request(
        request.method,
        request.path,
        params=list(request.params),
        headers=dict(request.headers),
        content=request.content,
    )
    return response.status_code, response.headers, response.content


async def send_async(http: httpx2.AsyncClient, request: Request) -> Answer:
    """Sends a request. Raises NoAnswer."""
    response = await http.request(
        request.method,
        request.path,
        params=list(request.params),
        headers=dict(request.headers),
        content=request.content,
    )
    return response.status_code, response.headers, response.content


def failure(base_url: str, error: httpx2.RequestError) -> ClientError:
    """Returns the error for a request without an answer."""
    return ClientError(f"{base_url}: expected an answer, got: {error or type(error).__name__}")


def _headers(api_key: str | None) -> dict[str, str]:
    return {"authorization": f"Bearer {api_key}"} if api_key else {}
