"""Routes of /v1/files: the input and output files of jobs, addressed by id."""

from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from hsoftmax.service.context import AppContext
from hsoftmax.service.errors import InvalidQuery, TooLarge, UnsupportedMediaType
from hsoftmax.service.jobs.deletion import delete_file
from hsoftmax.service.jobs.expires_after import MAX_EXPIRY_S, MIN_EXPIRY_S
from hsoftmax.service.jobs.file_store import (
    StoredFile,
    add_upload,
    expect_room,
    find_file,
    list_files,
    path_of,
    unlink,
)
from hsoftmax.service.jobs.schemas import FileDeleted, FileList, FileObject
from hsoftmax.service.jobs.upload_parser import MAX_FORM_OVERHEAD_BYTES, receive_file

from .dependencies import Context, ParameterInteger
from .disconnect_route import DisconnectRoute
from .file_response import RangeFileResponse
from .owner import owner_of

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
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {
                            "type": "integer",
                            "minimum": MIN_EXPIRY_S,
                            "maximum": MAX_EXPIRY_S,
                        },
                    },
                }
            }
        },
    }
}
_TYPES = {
    ".ndjson": "application/x-ndjson",
    ".jsonl": "application/x-ndjson",
    ".txt": "text/plain; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".parquet": "application/vnd.apache.parquet",
    ".feather": "application/vnd.apache.arrow.file",
    ".arrow": "application/vnd.apache.arrow.file",
    ".npy": "application/x-npy",
}
_BYTES = {"schema": {"type": "string", "format": "binary"}}
_ERRORS: dict[int | str, dict[str, Any]] = {404: {}, 503: {}, 507: {}}


file_routes = APIRouter(prefix="/v1/files", tags=["jobs"], route_class=DisconnectRoute)


@file_routes.post(
    "",
    summary="Upload a file for jobs",
    openapi_extra=_FORM,
    responses={400: {}, 408: {}, 413: {}, 415: {}, 422: {}, 503: {}, 507: {}},
)
async def upload(context: Context, request: Request) -> FileObject:
    _expect_uncompressed(request)
    await _expect_room(context, _content_length(request))
    file = replace(await _receive(context, request), owner=owner_of(request))
    try:
        await context.jobs.run_with_database(add_upload, file, context.settings.max_files_bytes)
    except BaseException:
        unlink(context.jobs.state_dir, file.path)
        raise
    return file.to_object(context.settings.job_retention)


@file_routes.get("", summary="List files", responses={422: {}, 503: {}, 507: {}})
async def files(
    context: Context,
    request: Request,
    purpose: Annotated[str | None, Query(description="batch or batch_output")] = None,
    limit: Annotated[ParameterInteger, Query(ge=1, le=10_000)] = 10_000,
    after: Annotated[str | None, Query(description="list the files after this id")] = None,
    order: Annotated[Literal["asc", "desc"], Query(description="by age")] = "desc",
) -> FileList:
    found, more = await context.jobs.run_with_database(
        list_files, purpose, limit, after, order == "desc", owner_of(request)
    )
    return FileList.of([file.to_object(context.settings.job_retention) for file in found], more)


@file_routes.get("/{id}", summary="Describe a file", responses=_ERRORS)
async def file(context: Context, request: Request, id: str) -> FileObject:
    found = await context.jobs.run_with_database(find_file, id, owner_of(request))
    return found.to_object(context.settings.job_retention)


@file_routes.get(
    "/{id}/content",
    summary="Download the content of a file",
    response_class=Response,
    responses={
        200: {"content": dict.fromkeys(sorted(set(_TYPES.values())), _BYTES)},
        416: {},
        **_ERRORS,
    },
)
async def content(context: Context, request: Request, id: str) -> Response:
    found = await context.jobs.run_with_database(find_file, id, owner_of(request))
    path = path_of(context.jobs.state_dir, found)
    return RangeFileResponse(path, media_type=_TYPES[path.suffix], filename=found.filename)


@file_routes.delete("/{id}", summary="Delete a file", responses={**_ERRORS, 409: {}})
async def delete(context: Context, request: Request, id: str) -> FileDeleted:
    await context.jobs.run_with_database(delete_file, context.jobs.state_dir, id, owner_of(request))
    return FileDeleted(id=id)


async def _expect_room(context: AppContext, num_bytes: int | None) -> None:
    """Raise StorageFull or TooLarge if the content-length of the body is too large."""
    settings = context.settings
    await context.jobs.run_with_database(expect_room, num_bytes or 0, settings.max_files_bytes)
    if num_bytes is not None and num_bytes > settings.max_file_bytes + MAX_FORM_OVERHEAD_BYTES:
        raise TooLarge(f"file: expected at most {settings.max_file_bytes} bytes, got {num_bytes}")


async def _receive(context: AppContext, request: Request) -> StoredFile:
    return await receive_file(
        request.stream(),
        request.headers.get("content-type", ""),
        context.jobs.state_dir,
        max_bytes=context.settings.max_file_bytes,
        timeout=context.settings.body_timeout,
    )


def _expect_uncompressed(request: Request) -> None:
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise UnsupportedMediaType(
            f"content-encoding: expected a file as it is, got {encoding[:60]!r}"
        )


def _content_length(request: Request) -> int | None:
    length = request.headers.get("content-length")
    if length is None:
        return None
    if not length.isascii() or not length.isdigit():
        raise InvalidQuery("content-length: expected a number")
    return int(length)
