"""What handlers are given of the app that they answer for."""

from typing import Annotated

from fastapi import Depends, Request

from hsoftmax.service.context import AppContext, context_of


async def _core(request: Request) -> AppContext:
    return context_of(request.app)


Context = Annotated[AppContext, Depends(_core)]
