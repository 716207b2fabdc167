"""`create_app`: settings to a FastAPI application, with nothing global in between."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from hsoftmax.runtime.devices import Device, DeviceError
from hsoftmax.runtime.sessions import choose_device

from .api import (
    Endpoint,
    ScoreEndpoint,
    admin_routes,
    batch_routes,
    bundle_routes,
    file_routes,
    health_routes,
    page_routes,
    question_endpoints,
)
from .api.dispatch import Shortcut
from .api.openapi import document
from .context import Core, core_of
from .control import answer_peer, keep
from .daemon_thread import in_daemon_thread
from .engine import INLINE_WORK, Bounds, Engine
from .errors import InvalidQuery, ServiceError, StartError
from .health import Health
from .http.responses import UNFORESEEN, error_response, of_status
from .jobs import Jobs
from .logging import Log, json_log
from .metrics import Metrics
from .middleware.api_keys import Keys
from .middleware.authentication import Gate
from .middleware.compression import Compression
from .middleware.request_log import Rim
from .middleware.tracing import Traced, open_traces
from .repository.polling import watch
from .repository.repository import Repository
from .resources import keep_for_good
from .settings import Settings
from .workers.channel import Peers

_ROUTES = (health_routes, bundle_routes, admin_routes, file_routes, batch_routes, page_routes)
_DESCRIPTION = "Probabilities from softmaxes over output spaces too large to score in full."


def create_app(
    settings: Settings, *, log: Log | None = None, peers: Peers | None = None
) -> FastAPI:
    """The service over a repository; bundles are loaded once the app has started.

    Raises:
        StartError: no such repository, or a device that is not there.
    """
    core = _core(settings, log or json_log(settings.log_level), peers)
    app = _Service(
        title="hsoftmax",
        version=version("hsoftmax"),
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # looked up at each request
        lifespan=_lifespan,
    )
    app.state.core = core
    endpoints: dict[str, Endpoint | ScoreEndpoint] = {
        **question_endpoints(core),
        "score": ScoreEndpoint(core),
    }
    _add_routes(app, endpoints)
    _handle_errors(app)
    app.middleware_stack = _layers(app.build_middleware_stack(), endpoints, core)
    app.openapi = lambda: document(app)  # type: ignore[method-assign]  # FastAPI's own way
    return app


class _Service(FastAPI):
    """FastAPI, but without what it does before its middleware, which nothing here needs."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self.middleware_stack is None:
            return await super().__call__(scope, receive, send)
        scope["app"] = self
        await self.middleware_stack(scope, receive, send)


def _add_routes(app: FastAPI, endpoints: Mapping[str, Endpoint | ScoreEndpoint]) -> None:
    """All of them: the endpoints that are raw ASGI, and the framework's own."""
    for name, endpoint in endpoints.items():
        app.router.routes.append(Route(endpoint.path, endpoint, methods=["POST"], name=name))
    for routes in _ROUTES:
        app.include_router(routes)


def _layers(app: ASGIApp, endpoints: Mapping[str, ASGIApp], core: Core) -> ASGIApp:
    """What a request passes on its way to the framework, from the inside out."""
    app = Shortcut(app, endpoints)
    if core.keys.closed:
        app = Gate(app, core.keys)
    app = Compression(app, core.settings.compress_above)
    if core.traces is not None:
        app = Traced(app, core.traces)
    return Rim(app, core.metrics, core.log, core.health)


def _core(settings: Settings, log: Log, peers: Peers | None) -> Core:
    device = _device(settings)
    metrics, health = Metrics(), Health()
    repository = Repository(
        settings.repository,
        device=device,
        check_hashes=settings.check_hashes,
        log=log,
        unloaded=frozenset() if peers is None else peers.unloaded,
    )
    engine = _engine(settings, log, metrics)
    return Core(
        settings=settings,
        repository=repository,
        engine=engine,
        health=health,
        keys=Keys(settings, log),
        metrics=metrics,
        log=log,
        jobs=Jobs(settings, repository, engine, health, metrics, log),
        peers=peers,
        traces=open_traces(log),
    )


def _device(settings: Settings) -> Device:
    try:
        return choose_device(settings.device, settings.threads)
    except DeviceError as error:
        raise StartError(str(error)) from None


def _engine(settings: Settings, log: Log, metrics: Metrics) -> Engine:
    return Engine(
        settings.threads,
        log,
        metrics,
        bounds=Bounds(
            settings.max_queue_requests, settings.max_queue_rows, settings.max_queue_bytes
        ),
        timeout=settings.timeout,
        inline_work=INLINE_WORK,
        batching=settings.batching,
    )


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    core = core_of(app)
    if core.peers is not None:
        await core.peers.listen(partial(answer_peer, core))
    following = asyncio.create_task(_follow(core))
    core.jobs.start(asyncio.get_running_loop())
    yield
    await asyncio.to_thread(core.jobs.stop)
    if core.peers is not None:
        keep(core)
        core.peers.close()
    core.engine.close()
    if core.traces is not None:
        await asyncio.to_thread(core.traces.close)
    following.cancel()
    await asyncio.wait([following])


async def _follow(core: Core) -> None:
    """Load the repository, then keep up with it."""
    await in_daemon_thread(core.load)
    keep_for_good()
    if core.settings.watch:
        await watch(core.repository, core.log, core.health.recover)


def _handle_errors(app: FastAPI) -> None:
    """All kinds of error, one shape; the rim logs those that nobody foresaw."""

    @app.exception_handler(ServiceError)
    async def service_error(request: Request, error: ServiceError) -> Response:
        return error_response(error, request.scope)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        allowed = (error.headers or {}).get("Allow")
        return error_response(of_status(error.status_code, allowed), request.scope, error.headers)

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> Response:
        return error_response(UNFORESEEN, request.scope)

    @app.exception_handler(RequestValidationError)
    async def parameter_error(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        wanted = first["msg"].removeprefix("Input should be ").partition(",")[0]
        sentence = f"{first['loc'][-1]}: expected {wanted}, got {str(first['input'])[:60]!r}"
        return error_response(InvalidQuery(sentence), request.scope)
