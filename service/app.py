"""`create_app`: settings to an ASGI application, with nothing global in between.

A request passes plain ASGI layers before anything of the framework:

    RequestLog -> Tracing -> Authentication -> Compression -> Dispatcher -> endpoint
                                                                         -> FastAPI
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version

from fastapi import FastAPI
from starlette.datastructures import State
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from .api import (
    Endpoint,
    ScoreEndpoint,
    add_error_handlers,
    admin_routes,
    batch_routes,
    bundle_routes,
    file_routes,
    health_routes,
    operation_endpoints,
    operation_path,
    page_routes,
)
from .api.dispatch import Dispatcher
from .api.methods import Methods
from .api.openapi import document
from .context import AppContext, build_context, context_of
from .control import answer_peer, keep
from .logging import Log, json_log
from .middleware.authentication import AuthenticationMiddleware
from .middleware.compression import CompressionMiddleware
from .middleware.request_log import RequestLogMiddleware
from .middleware.tracing import TracingMiddleware
from .repository.daemon_thread import in_daemon_thread
from .repository.polling import poll
from .resources import freeze_gc
from .settings import Settings
from .workers.channel import WorkerChannel

_ROUTERS = (health_routes, bundle_routes, admin_routes, file_routes, batch_routes, page_routes)
_DESCRIPTION = "Probabilities from softmaxes over output spaces too large to score in full."


class Application:
    """The service as an ASGI application.

    Attributes:
        api: FastAPI with every route, for its router and its OpenAPI document
        layers: the ASGI layers around the endpoints and `api`
    """

    def __init__(self, api: FastAPI, layers: ASGIApp) -> None:
        self.api = api
        self.layers = layers

    @property
    def state(self) -> State:
        """The state of `api`, which holds the context."""
        return self.api.state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self.layers if scope["type"] == "http" else self.api
        await app(scope, receive, send)


def create_app(
    settings: Settings, *, log: Log | None = None, peers: WorkerChannel | None = None
) -> Application:
    """Build the service over a repository; it loads the bundles once the app has started.

    Raises:
        StartError: no such repository, or a device that is not there.
    """
    context = build_context(settings, log or json_log(settings.log_level), peers)
    endpoints: dict[str, Endpoint | ScoreEndpoint] = {
        **operation_endpoints(context),
        "score": ScoreEndpoint(context),
    }
    api, routes = _api(context, endpoints)
    return Application(api, _layers(Methods(api, routes), endpoints, context))


def _api(
    context: AppContext, endpoints: Mapping[str, Endpoint | ScoreEndpoint]
) -> tuple[FastAPI, list[BaseRoute]]:
    """FastAPI, and all of its routes: its own, and the endpoints that are raw ASGI."""
    api = FastAPI(
        title="hsoftmax",
        version=version("hsoftmax"),
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # looked up at each request
        lifespan=_lifespan,
    )
    api.state.context = context
    for name, endpoint in endpoints.items():
        path = operation_path(name)
        api.router.routes.append(Route(path, endpoint, methods=["POST"], name=name))
    for router in _ROUTERS:
        api.include_router(router)
    routes = [*api.routes, *(route for router in _ROUTERS for route in router.routes)]
    add_error_handlers(api, routes)
    api.openapi = lambda: document(api)  # type: ignore[method-assign]  # FastAPI's own way
    return api, routes


def _layers(app: ASGIApp, endpoints: Mapping[str, ASGIApp], context: AppContext) -> ASGIApp:
    """The layers around FastAPI, from the inside out."""
    app = Dispatcher(app, endpoints)
    app = CompressionMiddleware(app, context.settings.compress_above)
    if context.keys.closed:
        app = AuthenticationMiddleware(app, context.keys)
    if context.traces is not None:
        app = TracingMiddleware(app, context.traces)
    return RequestLogMiddleware(app, context.metrics, context.log, context.health)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    context = context_of(app)
    if context.peers is not None:
        await context.peers.listen(partial(answer_peer, context))
    following = asyncio.create_task(_follow(context))
    context.jobs.start(asyncio.get_running_loop())
    yield
    await asyncio.to_thread(context.jobs.stop)
    if context.peers is not None:
        keep(context)
        context.peers.close()
    context.engine.close()
    if context.traces is not None:
        await asyncio.to_thread(context.traces.close)
    following.cancel()
    await asyncio.wait([following])


async def _follow(context: AppContext) -> None:
    """Load the repository, then keep up with it."""
    await in_daemon_thread(context.load)
    freeze_gc()
    if context.settings.watch:
        await poll(context.repository, context.log, context.health.recover)
