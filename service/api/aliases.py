"""Routes under the names that other platforms use: their probes, and their way of asking.

    GET  /health, /ping, the health route of Vertex AI    is the service ready?
    GET  /version, /info                                  the service and its bundles
    POST /v1/models/{name}:predict                        KServe's protocol v1
    POST /invocations                                     SageMaker
    POST the predict route of Vertex AI                   as KServe's, of the only bundle

All of them lead to the operations, so their limits, errors and metrics are the same.
"""

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import msgspec
from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hsoftmax.service.codecs.json import decode, encode
from hsoftmax.service.context import AppContext
from hsoftmax.service.errors import InvalidQuery, ServiceError, Unreadable
from hsoftmax.service.http.body import read_body
from hsoftmax.service.http.content_types import Format
from hsoftmax.service.http.request_context import request_context_of
from hsoftmax.service.http.responses import send_error, send_response
from hsoftmax.service.inference.body_bounds import check_body_shape
from hsoftmax.service.inference.tensors.metadata import SERVER_NAME

from .dependencies import Context
from .health_probes import Ready, ready

TARGET_MODEL = b"x-amzn-sagemaker-target-model"
PREDICT_PATH, INVOCATIONS_PATH = "/v1/models/{name}:predict", "/invocations"
# They describe a body that was read already.
_BODY_HEADERS = frozenset(
    {b"accept", b"content-encoding", b"content-length", b"content-type", b"transfer-encoding"}
)

Json = dict[str, Any]


class Version(BaseModel):
    """Version of the service."""

    version: str


class Info(Version):
    """The service and the names of its bundles."""

    name: str = SERVER_NAME
    models: list[str]


alias_routes = APIRouter(tags=["aliases"])
alias_routes.add_api_route("/health", ready, summary="Alias of /healthz/ready")
alias_routes.add_api_route("/ping", ready, summary="Alias of /healthz/ready, for SageMaker")


@alias_routes.get("/version", summary="Version of the service")
async def show_version() -> Version:
    return Version(version=version("hsoftmax"))


@alias_routes.get("/info", summary="The service and its bundles")
async def show_info(context: Context) -> Info:
    return Info(version=version("hsoftmax"), models=context.repository.names())


def platform_routes(context: AppContext, top_k: ASGIApp, infer: ASGIApp) -> Iterator[BaseRoute]:
    """Yield the routes that ask, and those whose paths the settings name."""
    predict = PredictEndpoint(context, top_k, infer, PREDICT_PATH)
    yield Route(PREDICT_PATH, predict, methods=["POST"])
    invocations = PredictEndpoint(context, top_k, infer, INVOCATIONS_PATH)
    yield Route(INVOCATIONS_PATH, invocations, methods=["POST"])
    settings = context.settings
    if settings.predict_route is not None:
        of_only = PredictEndpoint(context, top_k, infer, settings.predict_route)
        yield Route(settings.predict_route, of_only, methods=["POST"])


def health_router(path: str) -> APIRouter:
    """Return a router with the readiness check under this path."""
    router = APIRouter(tags=["aliases"])
    router.add_api_route(path, ready, response_model=Ready, summary="Alias of /healthz/ready")
    return router


class _Body(msgspec.Struct):
    """`instances` are rows for `top_k`; `inputs` are the tensors of the Open Inference Protocol."""

    instances: list[Any] | None = None
    parameters: dict[str, Any] | None = None
    inputs: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_DECODER = msgspec.json.Decoder(_Body)


class PredictEndpoint:
    """ASGI app that passes `instances` to the operation top_k, and tensors to `infer`."""

    def __init__(self, context: AppContext, top_k: ASGIApp, infer: ASGIApp, path: str) -> None:
        self._context = context
        self._top_k = top_k
        self._infer = infer
        self.path = path  # label in metrics and logs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_context = request_context_of(scope)
        headers, settings = request_context.headers, self._context.settings
        try:
            body = await read_body(headers, receive, settings, self._context.body_budget)
            name = self._name(scope)
            bundle = self._context.repository.find(name, key=request_context.sticky_key)
            check_body_shape(body, bundle, settings, as_tensors=True)
            parsed = decode(_DECODER, body)
            request_context.headers = {k: v for k, v in headers.items() if k not in _BODY_HEADERS}
            scope["path_params"] = {"name": name}
            if parsed.inputs is not msgspec.UNSET:
                return await self._infer(scope, _replay(body, receive), send)
            answer = await self._predict(parsed, scope, receive, send)
            if answer is not None:
                await send_response(send, Format.JSON, encode(answer))
        except ServiceError as error:
            await send_error(send, error, scope)
        except ClientDisconnect:
            return

    def _name(self, scope: Scope) -> str:
        """Return the bundle that a request names, or the only one. Raises Unreadable."""
        if "name" in scope["path_params"]:
            return str(scope["path_params"]["name"])
        target = request_context_of(scope).headers.get(TARGET_MODEL, b"").decode("latin-1")
        names = self._context.repository.names()
        if target:
            return target.strip("/").removesuffix(".tar.gz")
        if len(names) != 1:
            raise Unreadable(
                f"{TARGET_MODEL.decode()}: expected this header with the name of a bundle, as "
                f"{len(names)} are served, got none"
            )
        return names[0]

    async def _predict(
        self, body: _Body, scope: Scope, receive: Receive, send: Send
    ) -> Json | None:
        """Return the answer; None if `top_k` has sent an error itself."""
        query = encode({**(body.parameters or {}), "inputs": _rows(body.instances)})
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        await self._top_k(scope, _replay(query, receive), keep)
        if messages and messages[0]["status"] == 200:
            answer: Json = msgspec.json.decode(b"".join(one["body"] for one in messages[1:]))
            return {"predictions": answer.pop("results"), **answer}
        for message in messages:
            await send(message)
        return None


def _rows(instances: list[Any] | None) -> list[Any] | dict[str, list[Any]]:
    """Return the rows as `inputs`: as they are, or by name for objects. Raises InvalidQuery."""
    if instances is None:
        raise InvalidQuery("instances: expected a list of rows, got none")
    if not instances or not isinstance(instances[0], dict):
        return instances
    names = instances[0].keys()
    for i, one in enumerate(instances):
        if not isinstance(one, dict) or one.keys() != names:
            raise InvalidQuery(f"instances row {i}: expected {', '.join(names)}, got other fields")
    return {name: [one[name] for one in instances] for name in names}


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body, and then what the client sends."""
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def replay() -> Message:
        message = next(messages, None)
        return await receive() if message is None else message

    return replay
