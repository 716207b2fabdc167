"""Dependencies and types of the parameters that FastAPI passes to route handlers."""

from typing import Annotated

from fastapi import Depends, Request
from pydantic import BeforeValidator
from pydantic_core import PydanticKnownError

from hsoftmax.scoring.numbers import parse_integer
from hsoftmax.service.context import AppContext, context_of


async def _context(request: Request) -> AppContext:
    return context_of(request.app)


Context = Annotated[AppContext, Depends(_context)]


def _integer(text: object) -> object:
    """Return the integer in a parameter's text. pydantic itself takes ` 5` and `1_0` for numbers.

    Raises:
        PydanticKnownError: it is no integer.
    """
    number = parse_integer(text) if isinstance(text, str) else text
    if number is None:
        raise PydanticKnownError("int_parsing")
    return number


ParameterInteger = Annotated[int, BeforeValidator(_integer)]
