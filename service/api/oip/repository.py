"""Routes of the repository under /v2/repository: its index, and load and unload for operators."""

from typing import Any, Literal

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from hsoftmax.service import control
from hsoftmax.service.api.dependencies import Context
from hsoftmax.service.codecs.json import decode
from hsoftmax.service.context import AppContext
from hsoftmax.service.errors import BundleRefused, InvalidQuery
from hsoftmax.service.http.body import read_body
from hsoftmax.service.http.request_context import request_context_of
from hsoftmax.service.inference.tensors.repository_index import repository_index
from hsoftmax.service.middleware.authentication import expect_admin

_UNLOAD_PARAMETERS = frozenset({"unload_dependents"})


class IndexEntry(BaseModel):
    """One version in the repository."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str


class _Body(msgspec.Struct):
    """The body of the routes; all fields may be left out, as may the body."""

    ready: bool | None = None
    parameters: dict[str, Any] | None = None


_DECODER = msgspec.json.Decoder(_Body)

oip_repository_routes = APIRouter(prefix="/v2/repository", tags=["open inference"])
oip_admin_routes = APIRouter(prefix="/v2/repository", tags=["open inference", "admin"])


@oip_repository_routes.post("/index", summary="List every version, and why one is not served")
async def index(context: Context, request: Request) -> list[IndexEntry]:
    body = await _read(context, request)
    entries = repository_index(context.repository, ready_only=bool(body.ready))
    allows = request_context_of(request.scope).allows_model
    return [IndexEntry(**entry) for entry in entries if allows(entry["name"])]


@oip_admin_routes.post(
    "/models/{name}/load",
    summary="Load a bundle from the repository",
    response_class=Response,
    responses={401: {}, 403: {}, 404: {}, 409: {}},
)
async def load(context: Context, request: Request, name: str) -> Response:
    expect_admin(request.scope, context.keys, name)
    body = await _read(context, request)
    if body.parameters:
        got = next(iter(body.parameters))
        raise InvalidQuery(
            f"parameters: expected none, as bundles are loaded as they are, got {got[:60]!r}"
        )
    if refused := await control.reload(context, name):
        raise BundleRefused("load: " + "; ".join(refused.values()))
    request_context_of(request.scope).set_model(context.repository.find(name))
    return Response()


@oip_admin_routes.post(
    "/models/{name}/unload",
    summary="Unload a bundle until it is loaded again",
    response_class=Response,
    responses={401: {}, 403: {}, 404: {}},
)
async def unload(context: Context, request: Request, name: str) -> Response:
    expect_admin(request.scope, context.keys, name)
    body = await _read(context, request)
    for parameter in (body.parameters or {}).keys() - _UNLOAD_PARAMETERS:
        raise InvalidQuery(f"parameters: expected unload_dependents, got {parameter[:60]!r}")
    await control.unload(context, name)
    return Response()


async def _read(context: AppContext, request: Request) -> _Body:
    """Read a body of any content type. Raises ServiceError."""
    headers = request_context_of(request.scope).headers
    body = await read_body(headers, request.receive, context.settings, context.body_budget)
    return decode(_DECODER, body) if body.strip() else _Body()
