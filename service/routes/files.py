"""/v1/files: what jobs read, and what they have made."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from service.core import Core
from service.errors import InvalidQuery, TooLarge, UnsupportedMediaType
from service.jobs.files import (
    StoredFile,
    add_upload,
    delete_file,
    expect_room,
    find_file,
    list_files,
    path_of,
    unlink,
)
from service.jobs.objects import FileDeleted, FileList, FileObject
from service.jobs.uploads import receive_file

from .content import FileContent
from .leaving import LeavingRoute

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


def file_routes(core: Core) -> APIRouter:
    """Files by their ids; never by a path."""
    router = APIRouter(prefix="/v1/files", tags=["jobs"], route_class=LeavingRoute)
    jobs, settings = core.jobs, core.settings

    def shown(file: StoredFile) -> FileObject:
        return file.shown(settings.job_retention)

    @router.post(
        "",
        summary="Upload a file for jobs",
        openapi_extra=_FORM,
        responses={400: {}, 408: {}, 413: {}, 415: {}, 422: {}, 503: {}, 507: {}},
    )
    async def upload(request: Request) -> FileObject:
        _expect_plain(request)
        database = await asyncio.to_thread(jobs.database)
        told = _told_bytes(request)
        await asyncio.to_thread(expect_room, database, told or 0, settings.max_files_bytes)
        if told is not None and told > settings.max_file_bytes + 2**16:
            raise TooLarge(f"file: expected at most {settings.max_file_bytes} bytes, got {told}")
        file = await receive_file(
            _pieces(request),
            request.headers.get("content-type", ""),
            jobs.place,
            most_bytes=settings.max_file_bytes,
            patience=settings.body_timeout,
        )
        try:
            await asyncio.to_thread(add_upload, database, file, settings.max_files_bytes)
        except BaseException:
            unlink(jobs.place, file.path)
            raise
        return shown(file)

    @router.get("", summary="The files that are here", responses={422: {}, 503: {}})
    async def files(
        purpose: Annotated[str | None, Query(description="batch or batch_output")] = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
        after: Annotated[str | None, Query(description="the id of the last one known")] = None,
        order: Annotated[Literal["asc", "desc"], Query(description="by age")] = "desc",
    ) -> FileList:
        database = await asyncio.to_thread(jobs.database)
        found, more = await asyncio.to_thread(
            list_files, database, purpose, limit, after, order == "desc"
        )
        data = [shown(file) for file in found]
        ends = [data[0].id, data[-1].id] if data else [None, None]
        return FileList(data=data, first_id=ends[0], last_id=ends[1], has_more=more)

    @router.get("/{id}", summary="One file", responses=_ERRORS)
    async def file(id: str) -> FileObject:
        database = await asyncio.to_thread(jobs.database)
        return shown(await asyncio.to_thread(find_file, database, id))

    @router.get(
        "/{id}/content",
        summary="A file's bytes",
        response_class=Response,
        responses={
            200: {"content": {"application/octet-stream": {"schema": {"type": "string"}}}},
            416: {},
            **_ERRORS,
        },
    )
    async def content(id: str) -> Response:
        database = await asyncio.to_thread(jobs.database)
        found = await asyncio.to_thread(find_file, database, id)
        path = path_of(jobs.place, found)
        return FileContent(path, media_type=_TYPES[path.suffix], filename=found.filename)

    @router.delete("/{id}", summary="Remove a file", responses={**_ERRORS, 409: {}})
    async def delete(id: str) -> FileDeleted:
        database = await asyncio.to_thread(jobs.database)
        await asyncio.to_thread(delete_file, database, jobs.place, id)
        return FileDeleted(id=id)

    return router


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    async for piece in request.stream():
        yield piece


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
