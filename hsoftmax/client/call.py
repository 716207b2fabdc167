"""A request and the function that reads its response. Nothing here sends anything.

`calls` builds them for each method of a model; the clients, synchronous and asyncio, send them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import orjson

from hsoftmax.models import QueryError

from .errors import ClientError

T = TypeVar("T")

JSON, NPY, NDJSON = "application/json", "application/x-npy", "application/x-ndjson"


@dataclass(frozen=True)
class Request:
    """One HTTP request.

    Attributes:
        digest: of the bundle that must answer; empty if any may
        repeatable: True if sending it twice does no more than sending it once
        upload: a file that is sent as the form of `POST /v1/files`, in place of `content`
        save_to: the file that gets the content of the response
    """

    method: str
    path: str
    params: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    digest: str = ""
    repeatable: bool = True
    upload: Path | None = None
    save_to: Path | None = None


@dataclass(frozen=True)
class Response:
    """A response with a status of success."""

    headers: Mapping[str, str]
    content: bytes

    def json(self) -> Any:  # noqa: ANN401  any JSON
        return orjson.loads(self.content)


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request, and what its response means."""

    request: Request
    read: Callable[[Response], T]


def read_json(response: Response) -> Any:  # noqa: ANN401  any JSON
    return response.json()


def get(path: str, *params: tuple[str, str]) -> Request:
    return Request("GET", path, params)


def post_json(path: str, body: Mapping[str, Any], *, digest: str = "") -> Request:
    """Returns a POST request; NumPy arrays in the body become JSON lists.

    Raises:
        QueryError: a value that JSON cannot hold, such as a text that is no Unicode.
    """
    try:
        content = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError as error:
        raise QueryError(f"query: expected values that JSON can hold, got: {error}") from None
    return Request("POST", path, (), {"content-type": JSON}, content, digest)


def model_path(name: str) -> str:
    return f"/v1/models/{quote(name, safe='')}"


def expect_digest(base: str, expected: str, got: str | None) -> None:
    """Raises ClientError if another bundle answered than the expected one."""
    if expected and got is not None and got != expected:
        raise ClientError(f"{base}: expected answers of bundle {expected[:12]}, got {got[:12]}'s")
