"""Response with the content of a stored file, or with a range of it."""

from starlette.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from hsoftmax.service.errors import RangeNotSatisfiable
from hsoftmax.service.http.responses import error_response

_MAX_QUOTED_LENGTH = 60  # characters of a range header in an error message


class RangeFileResponse(FileResponse):
    """FileResponse whose error for an invalid range has the JSON shape of all errors."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_invalid = False

        async def send_unless_invalid(message: Message) -> None:
            nonlocal is_invalid
            is_invalid = is_invalid or message.get("status", 200) >= 400
            if not is_invalid:
                await send(message)

        await super().__call__(scope, receive, send_unless_invalid)
        if is_invalid:
            await self._send_range_error(scope, receive, send)

    async def _send_range_error(self, scope: Scope, receive: Receive, send: Send) -> None:
        value = dict(scope["headers"]).get(b"range", b"").decode("latin-1")[:_MAX_QUOTED_LENGTH]
        size = self.headers["content-length"]
        error = RangeNotSatisfiable(
            f"range: expected bytes=FIRST-LAST within its {size} bytes, got {value!r}"
        )
        response = error_response(error, scope, {"content-range": f"bytes */{size}"})
        await response(scope, receive, send)
