"""Refusals where there is no room, in pieces that are made once.

Under overload most requests are refused, all in the same words but for their ids, and what a
refusal takes is taken from the answers to others. It takes so much for each function that is
called, as the caches are cold between two pieces of a large answer.
"""

from collections.abc import Callable
from functools import lru_cache
from time import perf_counter

import msgspec

from .answers import answer_headers, error_parts
from .callers import Reply, reply
from .compression import VARY, compressible
from .core import Core
from .errors import Overloaded, ServiceError
from .exchange import Exchange, new_request_id
from .formats import Format
from .gate import expect_key
from .heads import Head
from .rim import note
from .routes import Endpoint

_ID = "?" * 32

Pieces = tuple[bytes, ...]  # of an answer; between them stands the request's id


class Ask(msgspec.Struct, frozen=True):
    """What a head asks, and of which bundle, whatever the body."""

    head: Head
    name: str
    endpoint: Endpoint


class Known(msgspec.Struct, frozen=True):
    """What is kept of it.

    Attributes:
        task: tells a body's task at a glance; None where only reading it does
        varies: whether the answer may depend on which encodings the client accepts
    """

    ask: Ask
    task: Callable[[bytes], str] | None
    varies: bool


def know(ask: Ask) -> Known:
    """What there is to know, as the headers say."""
    asked = ask.head.asked
    varies = compressible(answer_headers(Format.JSON, 0), asked)
    return Known(ask, ask.endpoint.glance(asked), varies)


class Refusals:
    """For requests whose heads are known."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def refuse(self, known: Known, body: bytes) -> Reply | None:
        """The answer, logged and counted, if it is certain that there is no room; else None."""
        core, ask = self._core, known.ask
        if known.task is None or not core.engine.is_full(task := known.task(body)):
            return None
        if len(body) > core.settings.max_body_bytes:
            return None
        started = perf_counter()
        try:
            expect_key(ask.head.headers, core.keys)
            digest = core.repository.find(ask.name).manifest.digest
        except ServiceError:  # who looks closer will say it
            return None
        pieces = _pieces(*core.engine.reject(task), digest, known.varies)
        exchange = _exchange(ask, digest, started)
        note(core, exchange, "POST", ask.endpoint.path)
        return Overloaded.status, exchange.request_id.encode().join(pieces)


def _exchange(ask: Ask, digest: str, started: float) -> Exchange:
    return Exchange(
        new_request_id(),
        ask.head.asked,
        started,
        model=ask.name,
        digest=digest,
        status=Overloaded.status,
        code=Overloaded.code,
    )


@lru_cache(maxsize=64)
def _pieces(text: str, retry_after: int, digest: str, varies: bool) -> Pieces:
    exchange = Exchange(_ID, {}, 0.0, digest=digest)
    headers, body = error_parts(Overloaded(text, retry_after), exchange)
    headers += [VARY] if varies else []
    _, rest = reply(Overloaded.status, [*headers, *exchange.headers()], body)
    return tuple(rest.split(_ID.encode()))
