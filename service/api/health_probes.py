"""Liveness, readiness, metrics: what machines ask, and what never waits for a graph."""

from typing import Literal

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field

from hsoftmax.service.control import metrics_page

from .dependencies import Context


class Live(BaseModel):
    """The process answers, and so do its compute threads."""

    status: Literal["live"] = "live"


class Ready(BaseModel):
    """At least one bundle can be asked."""

    status: Literal["ready"] = "ready"
    models: list[str]
    refused: dict[str, str] = Field(description="<name>/<version> of what is not served, and why")


health_routes = APIRouter(tags=["health"])


@health_routes.get("/healthz/live", summary="Whether the process is alive")
async def live(context: Context) -> Live:
    context.health.expect_alive(context.engine)
    return Live()


@health_routes.get("/healthz/ready", summary="Whether to send requests here; 503 says why not")
async def ready(context: Context) -> Ready:
    context.health.expect_ready(context.repository)
    return Ready(models=context.repository.names(), refused=dict(context.repository.refused))


@health_routes.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(context: Context) -> Response:
    return Response(await metrics_page(context), media_type=CONTENT_TYPE_LATEST)
