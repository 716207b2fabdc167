"""A stored file as an answer, of which a client may ask for a part."""

from starlette.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from hsoftmax.service.errors import RangeNotSatisfiable
from hsoftmax.service.http.responses import error_response

_LONGEST = 60  # characters of a range that are given back


class FileContent(FileResponse):
    """The file or a range of it; a range that it does not have is an error like all others."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = False

        async def unless_refused(message: Message) -> None:
            nonlocal refused
            refused = refused or message.get("status", 200) >= 400
            if not refused:
                await send(message)

        await super().__call__(scope, receive, unless_refused)
        if refused:
            await self._refuse(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = dict(scope["headers"]).get(b"range", b"").decode("latin-1")[:_LONGEST]
        size = self.headers["content-length"]
        error = RangeNotSatisfiable(
            f"range: expected bytes=FIRST-LAST within its {size} bytes, got {asked!r}"
        )
        answer = error_response(error, scope, {"content-range": f"bytes */{size}"})
        await answer(scope, receive, send)
