"""Routes of the server under /v2: its metadata, and whether it is live and ready."""

from importlib.metadata import version
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from hsoftmax.service.api.dependencies import Context
from hsoftmax.service.inference.tensors.metadata import EXTENSIONS, SERVER_NAME


class ServerMetadata(BaseModel):
    """Name, version and extensions of the server."""

    name: str
    version: str
    extensions: list[str] = Field(description="parts of the protocol beyond its core")


class ServerLive(BaseModel):
    """The process and its compute threads work."""

    live: Literal[True] = True


class ServerReady(BaseModel):
    """At least one bundle is served."""

    ready: Literal[True] = True
    live: Literal[True] = True


oip_server_routes = APIRouter(prefix="/v2", tags=["open inference"])


@oip_server_routes.get("", summary="Server metadata")
async def server_metadata() -> ServerMetadata:
    return ServerMetadata(
        name=SERVER_NAME, version=version("hsoftmax"), extensions=list(EXTENSIONS)
    )


@oip_server_routes.get("/", include_in_schema=False)
async def server_metadata_with_slash() -> ServerMetadata:
    return await server_metadata()


@oip_server_routes.get("/health/live", summary="Liveness check")
async def server_live(context: Context) -> ServerLive:
    context.health.expect_alive(context.engine)
    return ServerLive()


@oip_server_routes.get("/health/ready", summary="Readiness check; status 503 gives the reason")
async def server_ready(context: Context) -> ServerReady:
    context.health.expect_alive(context.engine)
    context.health.expect_ready(context.repository)
    return ServerReady()
