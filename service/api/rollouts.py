"""Routes of a model's rollout: GET and PUT /v1/models/{name}/rollout, and POST …/rollback.

The rollout says which version answers requests that name none. Changes need the scope `admin`.
"""

from typing import Any, Literal

import msgspec
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from hsoftmax.service import control
from hsoftmax.service.codecs.json import decode
from hsoftmax.service.context import AppContext
from hsoftmax.service.errors import InvalidRollout
from hsoftmax.service.http.body import read_body
from hsoftmax.service.http.request_context import request_context_of
from hsoftmax.service.middleware.authentication import expect_admin
from hsoftmax.service.repository.rollout import STABLE, VersionName, parse_rollout
from hsoftmax.service.repository.rollouts import ActiveRollout

from .dependencies import Context

_CHANGE_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {} for status in (400, 401, 403, 404, 409, 422, 503)
}


class RolloutDescription(BaseModel):
    """The rollout of a model that is followed."""

    model: str
    source: Literal["repository", "state", "none"] = Field(
        description="rollout.json in the repository, the state folder, or no rollout"
    )
    versions: list[str] = Field(description="all served versions")
    pin: str | None = Field(description="the version or alias that answers all requests")
    aliases: dict[str, str] = Field(description="the version of each alias that is served")
    split: dict[str, float] = Field(description="percentage of requests by version or alias")
    refused: str | None = Field(description="why the file is not followed, and an earlier one is")


class _Rollback(msgspec.Struct, forbid_unknown_fields=True):
    """The body of the route; it may be left out."""

    version: VersionName | None = None


_DECODER = msgspec.json.Decoder(_Rollback)
_ROLLOUT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {
            "schema": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "pin": {"type": ["string", "integer", "null"]},
                    "aliases": {"type": "object", "additionalProperties":
                                {"type": ["string", "integer"]}},
                    "split": {"type": "object", "additionalProperties":
                              {"type": "number", "minimum": 0, "maximum": 100}},
                },
            },
        }},
    },
}  # fmt: skip
_ROLLBACK_BODY: dict[str, Any] = {
    "requestBody": {
        "required": False,
        "content": {"application/json": {
            "schema": {
                "type": "object",
                "additionalProperties": False,
                "properties": {"version": {"type": ["string", "integer", "null"]}},
            },
        }},
    },
}  # fmt: skip

rollout_routes = APIRouter(prefix="/v1/models", tags=["bundles"])
rollout_admin_routes = APIRouter(prefix="/v1/models", tags=["admin"])


@rollout_routes.get("/{name}/rollout", summary="Show which versions answer", responses={404: {}})
async def show_rollout(context: Context, request: Request, name: str) -> RolloutDescription:
    request_context_of(request.scope).expect_model(name)
    return _describe(context, name, context.repository.rollout(name))


@rollout_admin_routes.put(
    "/{name}/rollout",
    summary="Choose which versions answer",
    openapi_extra=_ROLLOUT_BODY,
    responses=_CHANGE_ERRORS,
)
async def set_rollout(context: Context, request: Request, name: str) -> RolloutDescription:
    expect_admin(request.scope, context.keys, name)
    rollout = parse_rollout(await _read(context, request))
    return _describe(context, name, await control.set_rollout(context, name, rollout))


@rollout_admin_routes.post(
    "/{name}/rollback",
    summary="Send all requests to one version, by default the alias stable",
    openapi_extra=_ROLLBACK_BODY,
    responses=_CHANGE_ERRORS,
)
async def roll_back(context: Context, request: Request, name: str) -> RolloutDescription:
    expect_admin(request.scope, context.keys, name)
    body = await _read(context, request)
    asked = decode(_DECODER, body) if body.strip() else _Rollback()
    version = None if asked.version is None else str(asked.version)
    if version is None and STABLE not in context.repository.rollout(name).rollout.aliases:
        raise InvalidRollout(f"version: expected one, as {name} has no alias {STABLE}, got none")
    return _describe(context, name, await control.roll_back(context, name, version))


async def _read(context: AppContext, request: Request) -> bytes:
    headers = request_context_of(request.scope).headers
    return await read_body(headers, request.receive, context.settings, context.body_budget)


def _describe(context: AppContext, name: str, active: ActiveRollout) -> RolloutDescription:
    rollout = active.rollout
    resolved = {} if active.resolved is None else active.resolved.aliases
    return RolloutDescription(
        model=name,
        source=active.source,
        versions=context.repository.versions(name),
        pin=None if rollout.pin is None else str(rollout.pin),
        aliases={alias: str(version) for alias, version in resolved.items()},
        split=rollout.split,
        refused=active.refusal,
    )
