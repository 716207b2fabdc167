"""Routes POST /v1/models/{name}/reload and /unload, which need the admin key."""

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from hsoftmax.service import control
from hsoftmax.service.errors import BundleRefused
from hsoftmax.service.http.request_context import request_context_of
from hsoftmax.service.middleware.authentication import expect_admin

from .dependencies import Context
from .models import ModelDescription, describe


class Unloaded(BaseModel):
    """Response of an unload."""

    name: str
    status: Literal["unloaded"] = "unloaded"


admin_routes = APIRouter(prefix="/v1/models", tags=["admin"])


@admin_routes.post(
    "/{name}/reload",
    summary="Reload a bundle from the repository",
    responses={401: {}, 403: {}, 404: {}, 409: {}},
)
async def reload(context: Context, request: Request, name: str) -> ModelDescription:
    expect_admin(request.scope, context.keys, name)
    if refused := await control.reload(context, name):
        raise BundleRefused("reload: " + "; ".join(refused.values()))
    bundle = context.repository.find(name)
    request_context_of(request.scope).set_model(bundle)
    return describe(bundle, context.repository)


@admin_routes.post(
    "/{name}/unload",
    summary="Unload a bundle until it is reloaded",
    responses={401: {}, 403: {}, 404: {}},
)
async def unload(context: Context, request: Request, name: str) -> Unloaded:
    expect_admin(request.scope, context.keys, name)
    await control.unload(context, name)
    return Unloaded(name=name)
