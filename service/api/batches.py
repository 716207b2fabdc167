"""Routes of /v1/batches: create, list, show and cancel jobs that score whole files.

The job thread runs the jobs. They continue after a restart of the service.
"""

import time
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request

from hsoftmax.service.codecs.json import decode
from hsoftmax.service.context import AppContext
from hsoftmax.service.errors import InvalidQuery, TooLarge
from hsoftmax.service.http.body import read_body
from hsoftmax.service.http.request_context import request_context_of
from hsoftmax.service.jobs.batch_cancellation import cancel
from hsoftmax.service.jobs.batch_queries import find_batch, list_batches
from hsoftmax.service.jobs.batch_store import IdempotencyKey, add_batch, find_batch_by_key
from hsoftmax.service.jobs.database import Database
from hsoftmax.service.jobs.deletion import delete_batch
from hsoftmax.service.jobs.schemas import BatchDeleted, BatchList, BatchObject
from hsoftmax.service.jobs.submission import (
    BatchQuery,
    SubmissionContext,
    build_job,
    requested_model,
)

from .dependencies import Context, ParameterInteger
from .disconnect_route import DisconnectRoute
from .owner import owner_of

_DECODER = msgspec.json.Decoder(BatchQuery)
_MAX_KEY_LENGTH = 255
_BODY: dict[str, Any] = {
    "parameters": [
        {"name": "idempotency-key", "in": "header", "required": False, "schema": {"type": "string"},
         "description": "requests with the same key and body create only one job"},
    ],
    "requestBody": {
        "required": True,
        "content": {"application/json": {
            "schema": {"$ref": "#/components/schemas/BatchQuery"},  # which `openapi` adds
            "example": {"input_file_id": "file-5f2c", "endpoint": "/v1/models/words/score",
                        "completion_window": "24h", "task": "perplexity"},
        }},
    },
}  # fmt: skip
_CREATE_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {} for status in (400, 403, 404, 408, 409, 413, 415, 422, 429, 503, 507)
}
_LOOKUP_ERRORS: dict[int | str, dict[str, Any]] = {404: {}, 503: {}, 507: {}}
_MAX_BODY_BYTES = 2**20


batch_routes = APIRouter(prefix="/v1/batches", tags=["jobs"], route_class=DisconnectRoute)


@batch_routes.post(
    "", summary="Score every row of a file", openapi_extra=_BODY, responses=_CREATE_ERRORS
)
async def create(context: Context, request: Request) -> BatchObject:
    request_context = request_context_of(request.scope)
    body = await read_body(
        request_context.headers, request.receive, context.settings, context.body_budget
    )
    if len(body) > _MAX_BODY_BYTES:  # decoding millions of columns would stop the event loop
        raise TooLarge(f"body: expected at most {_MAX_BODY_BYTES} bytes, got {len(body)}")
    query = decode(_DECODER, body)
    request_context.expect_model(requested_model(query))
    batch = await context.jobs.run_with_database(
        _create_batch, query, _key(request, query), context, owner_of(request)
    )
    request_context.model, request_context.digest = batch.model, batch.digest
    request_context.version = batch.version
    context.jobs.wake()
    return batch


@batch_routes.get("", summary="List jobs, the newest first", responses={422: {}, 503: {}, 507: {}})
async def batches(
    context: Context,
    request: Request,
    limit: Annotated[ParameterInteger, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(description="list the jobs after this id")] = None,
) -> BatchList:
    found = await context.jobs.run_with_database(list_batches, limit, after, owner_of(request))
    return BatchList.of(*found)


@batch_routes.get("/{id}", summary="Describe a job", responses=_LOOKUP_ERRORS)
async def batch(context: Context, request: Request, id: str) -> BatchObject:
    return await context.jobs.run_with_database(find_batch, id, owner_of(request))


@batch_routes.post(
    "/{id}/cancel",
    summary="Cancel a job; finished output is kept",
    responses={**_LOOKUP_ERRORS, 409: {}},
)
async def cancel_batch(context: Context, request: Request, id: str) -> BatchObject:
    cancelled = await context.jobs.run_with_database(
        cancel, id, int(time.time()), owner_of(request)
    )
    context.jobs.wake()
    return cancelled


@batch_routes.delete(
    "/{id}",
    summary="Delete an ended job with its output files",
    responses={**_LOOKUP_ERRORS, 409: {}},
)
async def delete(context: Context, request: Request, id: str) -> BatchDeleted:
    await context.jobs.run_with_database(
        delete_batch, context.jobs.state_dir, id, owner_of(request)
    )
    return BatchDeleted(id=id)


def _create_batch(
    database: Database,
    query: BatchQuery,
    key: IdempotencyKey | None,
    context: AppContext,
    owner: str | None,
) -> BatchObject:
    if key is not None and (before := find_batch_by_key(database, key, owner)) is not None:
        return before
    submission = SubmissionContext(
        context.jobs.state_dir, database, context.repository, context.settings, context.log, owner
    )
    return add_batch(database, build_job(query, submission), key, context.settings.max_jobs)


def _key(request: Request, query: BatchQuery) -> IdempotencyKey | None:
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not 0 < len(key) <= _MAX_KEY_LENGTH:
        raise InvalidQuery(
            f"idempotency-key: expected 1 to {_MAX_KEY_LENGTH} characters, got {len(key)}"
        )
    return IdempotencyKey(key, query.digest())
