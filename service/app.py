"""`create_app` builds the ASGI application from the settings. There is no global state.

A request passes these ASGI layers before it reaches FastAPI:

    RequestLog -> Tracing -> Authentication -> RateLimit -> Compression -> Dispatcher -> endpoint
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
    docs_routes,
    file_routes,
    health_routes,
    label_routes,
    metrics_routes,
    operation_endpoints,
    operation_path,
    page_routes,
    rollout_admin_routes,
    rollout_routes,
)
from .api.aliases import alias_routes, health_router, platform_routes
from .api.dispatch import Dispatcher
from .api.methods import Methods
from .api.oip import INFER_PATH, INFER_VERSION_PATH, OIP_ROUTERS, InferEndpoint
from .api.openapi import document
from .context import AppContext, build_context, context_of
from .control import handle_message, keep_following, persist_counts
from .logging import Log, json_log
from .middleware.authentication import AuthenticationMiddleware
from .middleware.compression import CompressionMiddleware
from .middleware.rate_limiting import RateLimitMiddleware
from .middleware.request_log import RequestLogMiddleware
from .middleware.tracing import TracingMiddleware
from .repository.daemon_thread import in_daemon_thread
from .repository.polling import poll, poll_rollouts
from .resources import freeze_gc
from .settings import Settings
from .workers.channel import WorkerChannel

_ROUTERS = (
    health_routes, bundle_routes, label_routes, admin_routes, file_routes, batch_routes,
    docs_routes, page_routes, *OIP_ROUTERS, alias_routes, rollout_routes,
    rollout_admin_routes,
)  # fmt: skip
_DESCRIPTION = "Probabilities from softmaxes over output spaces too large to score in full."


class Application:
    """The service as an ASGI application.

    Attributes:
        api: FastAPI with every route, for its router and its OpenAPI document
        layers: the ASGI layers around the endpoints and `api`

    A port of its own, such as that of metrics, has another app (`by_port`).
    """

    def __init__(
        self, api: FastAPI, layers: ASGIApp, by_port: Mapping[int, ASGIApp] | None = None
    ) -> None:
        self.api = api
        self.layers = layers
        self._by_port = by_port or {}

    @property
    def state(self) -> State:
        """Return the state of `api`, which has the context."""
        return self.api.state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self.layers if scope["type"] == "http" else self.api
        if self._by_port and scope["type"] == "http":
            app = self._by_port.get(scope["server"][1], app)
        await app(scope, receive, send)


def create_app(
    settings: Settings, *, log: Log | None = None, channel: WorkerChannel | None = None
) -> Application:
    """Build the application. It loads the bundles once it has started.

    Raises:
        StartError: the repository does not exist, or the device is not available.
    """
    context = build_context(settings, log or json_log(settings.log_level), channel)
    endpoints: dict[str, Endpoint | ScoreEndpoint] = {
        **operation_endpoints(context),
        "score": ScoreEndpoint(context),
    }
    infer = InferEndpoint(context)
    context.metrics.start_routes({one.path for one in (*endpoints.values(), infer)})
    api, routes = _api(context, endpoints, infer)
    layers = _layers(Methods(api, routes), endpoints, infer, context)
    if settings.metrics_port is None:
        return Application(api, layers)
    return Application(api, layers, {settings.metrics_port: _metrics_app(context)})


def _api(
    context: AppContext, endpoints: Mapping[str, Endpoint | ScoreEndpoint], infer: InferEndpoint
) -> tuple[FastAPI, list[BaseRoute]]:
    """Build the FastAPI object; return it with all routes, those of plain ASGI endpoints too."""
    api = FastAPI(
        title="hsoftmax",
        version=version("hsoftmax"),
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={
            "tracing": False,
            "metrics": False,
            "logs": False,
        },  # saves a look-up at each request
        lifespan=_lifespan,
    )
    api.state.context = context
    for name, endpoint in endpoints.items():
        path = operation_path(name)
        api.router.routes.append(Route(path, endpoint, methods=["POST"], name=name))
    for path in (INFER_PATH, INFER_VERSION_PATH):
        api.router.routes.append(Route(path, infer, methods=["POST"], name=path))
    api.router.routes.extend(platform_routes(context, endpoints["top_k"], infer))
    settings = context.settings
    routers = [*_ROUTERS]
    if settings.metrics_port is None:
        routers.append(metrics_routes)
    if settings.health_route is not None:
        routers.append(health_router(settings.health_route))
    for router in routers:
        api.include_router(router)
    routes = [*api.routes, *(route for router in routers for route in router.routes)]
    add_error_handlers(api, routes)
    api.openapi = lambda: document(api, context)  # type: ignore[method-assign]  # as FastAPI documents it
    return api, routes


def _metrics_app(context: AppContext) -> ASGIApp:
    """Build the app of the metrics port: /metrics without a key, and nothing else."""
    api = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    api.state.context = context
    api.include_router(metrics_routes)
    routes = [*api.routes, *metrics_routes.routes]
    add_error_handlers(api, routes)
    return RequestLogMiddleware(Methods(api, routes), context.metrics, context.log, context.health)


def _layers(
    app: ASGIApp, endpoints: Mapping[str, ASGIApp], infer: ASGIApp, context: AppContext
) -> ASGIApp:
    """Add the layers around FastAPI, the innermost first."""
    app = Dispatcher(app, endpoints, infer)
    app = CompressionMiddleware(app, context.settings.compress_above)
    if context.keys.required or context.rate_limits.limits_all:
        app = RateLimitMiddleware(app, context.rate_limits, context.settings.health_route)
    if context.keys.required:
        app = AuthenticationMiddleware(app, context.keys, context.settings.health_route)
    if context.tracer is not None:
        app = TracingMiddleware(app, context.tracer)
    return RequestLogMiddleware(app, context.metrics, context.log, context.health)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    context = context_of(app)
    if context.channel is not None:
        await context.channel.listen(partial(handle_message, context))
    polling = poll_rollouts(context.repository, context.log, watch=context.settings.watch)
    background = [asyncio.create_task(_load_and_poll(context)), asyncio.create_task(polling)]
    if context.channel is not None:
        background.append(asyncio.create_task(keep_following(context)))
    context.jobs.start(asyncio.get_running_loop())
    yield
    await asyncio.to_thread(context.jobs.stop)
    if context.channel is not None:
        persist_counts(context)
        context.channel.close()
    context.engine.close()
    if context.tracer is not None:
        await asyncio.to_thread(context.tracer.close)
    for task in background:
        task.cancel()
    await asyncio.wait(background)
    if context.mirror is not None:
        context.mirror.close()


async def _load_and_poll(context: AppContext) -> None:
    """Load the repository, then poll it for changes if the settings say so."""
    if context.mirror is not None:
        await context.mirror.prepare(context.health, refresh=not context.settings.watch)
    await in_daemon_thread(context.load)
    freeze_gc()
    if not context.settings.watch:
        return
    polling = poll(context.repository, context.log, context.health.recover)
    if context.mirror is None:
        await polling
    else:
        await asyncio.gather(polling, context.mirror.keep())
