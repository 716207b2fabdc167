"""POST /v1/models/{name}/reload and /unload, for who has the admin key."""

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from service import changes
from service.core import Core
from service.errors import BundleRefused
from service.exchange import current
from service.gate import expect_admin

from .bundles import BundleInfo, describe


class Unloaded(BaseModel):
    """The bundle is served no more."""

    name: str
    status: Literal["unloaded"] = "unloaded"


def admin_routes(core: Core) -> APIRouter:
    """Changes to what is served, without waiting for the watch."""
    router = APIRouter(prefix="/v1/models", tags=["admin"])
    repository = core.repository

    @router.post(
        "/{name}/reload",
        summary="Serve what the repository holds of a bundle now",
        responses={401: {}, 403: {}, 404: {}, 409: {}},
    )
    async def reload(request: Request, name: str) -> BundleInfo:
        expect_admin(request.scope, core.keys)
        if refused := await changes.reload(core, name):
            raise BundleRefused("reload: " + "; ".join(refused.values()))
        served = repository.find(name)
        current(request.scope).serve(served)
        return describe(served, repository)

    @router.post(
        "/{name}/unload",
        summary="Serve a bundle no more, until it is reloaded",
        responses={401: {}, 403: {}, 404: {}},
    )
    async def unload(request: Request, name: str) -> Unloaded:
        expect_admin(request.scope, core.keys)
        await changes.unload(core, name)
        return Unloaded(name=name)

    return router
