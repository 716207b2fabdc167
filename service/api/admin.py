"""POST /v1/models/{name}/reload and /unload, for who has the admin key."""

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from hsoftmax.service import control
from hsoftmax.service.errors import BundleRefused
from hsoftmax.service.http.request_context import current
from hsoftmax.service.middleware.authentication import expect_admin

from .dependencies import Context
from .models import ModelDescription, describe


class Unloaded(BaseModel):
    """The bundle is served no more."""

    name: str
    status: Literal["unloaded"] = "unloaded"


admin_routes = APIRouter(prefix="/v1/models", tags=["admin"])


@admin_routes.post(
    "/{name}/reload",
    summary="Serve what the repository holds of a bundle now",
    responses={401: {}, 403: {}, 404: {}, 409: {}},
)
async def reload(context: Context, request: Request, name: str) -> ModelDescription:
    expect_admin(request.scope, context.keys)
    if refused := await control.reload(context, name):
        raise BundleRefused("reload: " + "; ".join(refused.values()))
    served = context.repository.find(name)
    current(request.scope).serve(served)
    return describe(served, context.repository)


@admin_routes.post(
    "/{name}/unload",
    summary="Serve a bundle no more, until it is reloaded",
    responses={401: {}, 403: {}, 404: {}},
)
async def unload(context: Context, request: Request, name: str) -> Unloaded:
    expect_admin(request.scope, context.keys)
    await control.unload(context, name)
    return Unloaded(name=name)
