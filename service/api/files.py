"""/v1/files: what jobs read, and what they have made; by their ids, never by a path."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from hsoftmax.service.context import AppContext
from hsoftmax.service.errors import InvalidQuery, TooLarge, UnsupportedMediaType
from hsoftmax.service.jobs.file_store import (
    StoredFile,
    add_upload,
    delete_file,
    expect_room,
    find_file,
    list_files,
    path_of,
    unlink,
)
from hsoftmax.service.jobs.schemas import FileDeleted, FileList, FileObject
from hsoftmax.service.jobs.upload_parser import MAX_FORM_OVERHEAD_BYTES, receive_file

from .dependencies import Context
from .disconnect_route import LeavingRoute
from .file_response import FileContent

_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "enum": ["batch"]},
                    },
                }
            }
        },
    }
}
_TYPES = {
    ".ndjson": "application/x-ndjson",
    ".jsonl": "application/x-ndjson",
    ".csv": "text/csv; charset=utf-8",
    ".parquet": "application/vnd.apache.parquet",
    ".arrow": "application/vnd.apache.arrow.file",
    ".npy": "application/x-npy",
}
_ERRORS: dict[int | str, dict[str, Any]] = {404: {}, 503: {}}


file_routes = APIRouter(prefix="/v1/files", tags=["jobs"], route_class=LeavingRoute)


@file_routes.post(
    "",
    summary="Upload a file for jobs",
    openapi_extra=_FORM,
    responses={400: {}, 408: {}, 413: {}, 415: {}, 422: {}, 503: {}, 507: {}},
)
async def upload(context: Context, request: Request) -> FileObject:
    _expect_plain(request)
    await _expect_room(context, _told_bytes(request))
    file = await _received(context, request)
    try:
        await context.jobs.run_with_database(add_upload, file, context.settings.max_files_bytes)
    except BaseException:
        unlink(context.jobs.state_dir, file.path)
        raise
    return file.to_object(context.settings.job_retention)


@file_routes.get("", summary="The files that are here", responses={422: {}, 503: {}})
async def files(
    context: Context,
    purpose: Annotated[str | None, Query(description="batch or batch_output")] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    after: Annotated[str | None, Query(description="the id of the last one known")] = None,
    order: Annotated[Literal["asc", "desc"], Query(description="by age")] = "desc",
) -> FileList:
    found, more = await context.jobs.run_with_database(
        list_files, purpose, limit, after, order == "desc"
    )
    return FileList.of([file.to_object(context.settings.job_retention) for file in found], more)


@file_routes.get("/{id}", summary="One file", responses=_ERRORS)
async def file(context: Context, id: str) -> FileObject:
    found = await context.jobs.run_with_database(find_file, id)
    return found.to_object(context.settings.job_retention)


@file_routes.get(
    "/{id}/content",
    summary="A file's bytes",
    response_class=Response,
    responses={
        200: {"content": {"application/octet-stream": {"schema": {"type": "string"}}}},
        416: {},
        **_ERRORS,
    },
)
async def content(context: Context, id: str) -> Response:
    found = await context.jobs.run_with_database(find_file, id)
    path = path_of(context.jobs.state_dir, found)
    return FileContent(path, media_type=_TYPES[path.suffix], filename=found.filename)


@file_routes.delete("/{id}", summary="Remove a file", responses={**_ERRORS, 409: {}})
async def delete(context: Context, id: str) -> FileDeleted:
    await context.jobs.run_with_database(delete_file, context.jobs.state_dir, id)
    return FileDeleted(id=id)


async def _expect_room(context: AppContext, told: int | None) -> None:
    """Raise StorageFull or TooLarge for a body that says of itself that it is too large."""
    settings = context.settings
    await context.jobs.run_with_database(expect_room, told or 0, settings.max_files_bytes)
    if told is not None and told > settings.max_file_bytes + MAX_FORM_OVERHEAD_BYTES:
        raise TooLarge(f"file: expected at most {settings.max_file_bytes} bytes, got {told}")


async def _received(context: AppContext, request: Request) -> StoredFile:
    return await receive_file(
        request.stream(),
        request.headers.get("content-type", ""),
        context.jobs.state_dir,
        max_bytes=context.settings.max_file_bytes,
        timeout=context.settings.body_timeout,
    )


def _expect_plain(request: Request) -> None:
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise UnsupportedMediaType(
            f"content-encoding: expected a file as it is, got {encoding[:60]!r}"
        )


def _told_bytes(request: Request) -> int | None:
    told = request.headers.get("content-length")
    if told is None:
        return None
    if not told.isascii() or not told.isdigit():
        raise InvalidQuery("content-length: expected a number")
    return int(told)
