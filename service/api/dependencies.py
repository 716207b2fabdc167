"""Dependencies that FastAPI passes to route handlers."""

from typing import Annotated

from fastapi import Depends, Request

from hsoftmax.service.context import AppContext, context_of


async def _context(request: Request) -> AppContext:
    return context_of(request.app)


Context = Annotated[AppContext, Depends(_context)]
