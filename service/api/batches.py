"""/v1/batches: jobs that score whole files, whatever happens meanwhile.

They are made and looked at here; the runner carries them out.
"""

import time
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request

from hsoftmax.service.codecs.json import decode
from hsoftmax.service.context import AppContext
from hsoftmax.service.errors import InvalidQuery
from hsoftmax.service.http.body import read_body
from hsoftmax.service.http.request_context import current
from hsoftmax.service.jobs.batch_store import (
    IdempotencyKey,
    add_batch,
    cancel,
    find_batch,
    find_batch_by_key,
    list_batches,
)
from hsoftmax.service.jobs.database import Database
from hsoftmax.service.jobs.schemas import BatchList, BatchObject
from hsoftmax.service.jobs.submission import BatchQuery, SubmissionContext, build_job

from .dependencies import Context
from .disconnect_route import LeavingRoute

_DECODER = msgspec.json.Decoder(BatchQuery)
_LONGEST_KEY = 255
_BODY: dict[str, Any] = {
    "parameters": [
        {"name": "idempotency-key", "in": "header", "required": False, "schema": {"type": "string"},
         "description": "the same key and body make one job, however often they are sent"},
    ],
    "requestBody": {
        "required": True,
        "content": {"application/json": {
            "schema": msgspec.json.schema_components([BatchQuery])[1]["BatchQuery"],
            "example": {"input_file_id": "file-5f2c", "endpoint": "/v1/models/words/score",
                        "completion_window": "24h", "task": "perplexity"},
        }},
    },
}  # fmt: skip
_MAKING: dict[int | str, dict[str, Any]] = {
    status: {} for status in (400, 403, 404, 408, 409, 413, 415, 422, 429, 503)
}
_ONE: dict[int | str, dict[str, Any]] = {404: {}, 503: {}}


batch_routes = APIRouter(prefix="/v1/batches", tags=["jobs"], route_class=LeavingRoute)


@batch_routes.post("", summary="Score every row of a file", openapi_extra=_BODY, responses=_MAKING)
async def create(context: Context, request: Request) -> BatchObject:
    request_context = current(request.scope)
    body = await read_body(request_context.asked, request.receive, context.settings)
    query = decode(_DECODER, body)
    batch = await context.jobs.run_with_database(_made, query, _key(request, query), context)
    request_context.model, request_context.digest = batch.model, batch.digest
    context.jobs.wake()
    return batch


@batch_routes.get("", summary="Jobs, the newest first", responses={422: {}, 503: {}})
async def batches(
    context: Context,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(description="the id of the last one known")] = None,
) -> BatchList:
    return BatchList.of(*await context.jobs.run_with_database(list_batches, limit, after))


@batch_routes.get("/{id}", summary="One job, as it is now", responses=_ONE)
async def batch(context: Context, id: str) -> BatchObject:
    return await context.jobs.run_with_database(find_batch, id)


@batch_routes.post(
    "/{id}/cancel",
    summary="Stop a job; what it has finished stays",
    responses={**_ONE, 409: {}},
)
async def cancel_batch(context: Context, id: str) -> BatchObject:
    cancelled = await context.jobs.run_with_database(cancel, id, int(time.time()))
    context.jobs.wake()
    return cancelled


def _made(
    database: Database, query: BatchQuery, key: IdempotencyKey | None, context: AppContext
) -> BatchObject:
    if key is not None and (before := find_batch_by_key(database, key)) is not None:
        return before
    desk = SubmissionContext(context.jobs.state_dir, database, context.repository, context.settings)
    return add_batch(database, build_job(query, desk), key, context.settings.max_jobs)


def _key(request: Request, query: BatchQuery) -> IdempotencyKey | None:
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not 0 < len(key) <= _LONGEST_KEY:
        raise InvalidQuery(
            f"idempotency-key: expected 1 to {_LONGEST_KEY} characters, got {len(key)}"
        )
    return IdempotencyKey(key, query.digest())
