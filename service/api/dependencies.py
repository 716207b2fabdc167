"""What handlers are given of the app that they answer for."""

from typing import Annotated

from fastapi import Depends, Request

from hsoftmax.service.context import Core, core_of


async def _core(request: Request) -> Core:
    return core_of(request.app)


AppCore = Annotated[Core, Depends(_core)]
