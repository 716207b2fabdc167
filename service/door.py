"""What is answered at the door: tiny questions, and refusals, without the app.

A task, and the layers of an app, cost a tiny query as much as its graph; and under overload most
requests are refused, and what a refusal takes is taken from the answers to others. So all that came
in one turn of the event loop is read, then run together, then answered, by the same endpoints and
with the same headers, log and metrics as in the app. What has to wait is let in, and goes on there
with what has been read.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from .answers import UNFORESEEN, answer_headers, error_parts
from .callers import Caller, Reply, reply
from .compression import VARY, compressible
from .core import Core
from .engine import Call, Outcome
from .errors import Overloaded, ServiceError
from .exchange import Exchange, Headers, exchange_of
from .gate import expect_key
from .heads import Head, Heads
from .order import Order
from .refusals import Ask, Known, Refusals, know
from .rim import note
from .routes import Endpoint
from .served import Served
from .shortcut import Find

_MOST = 16  # in one go: more gain little, and all others wait meanwhile


@dataclass(slots=True)
class _Visit:
    """What is known of one caller who asks a question."""

    caller: Caller
    ask: Ask
    body: bytes
    exchange: Exchange
    served: Served | None = None
    order: Order | None = None
    calls: Sequence[Call] = ()
    outcomes: Sequence[Outcome] = ()
    reply: Reply | None = None


class Door:
    """In front of an app, for all of its connections; used in the event loop's thread alone."""

    def __init__(self, core: Core, find: Find[Endpoint]) -> None:
        self._core = core
        self._find = find
        self.heads: Heads[Known] = Heads()
        self._refusals = Refusals(core)
        self._visits: deque[_Visit] = deque()
        self._came = 0  # in this turn of the loop
        self._alone = False  # whether only one did in the last

    @property
    def open(self) -> bool:
        """Whether nobody is stopped here, as every request is to be seen by the app."""
        return self._core.traces is not None or self._core.health.draining

    def ask(self, head: Head) -> Ask | None:
        """What is asked, if it is plainly a question."""
        name, endpoint = self._find(head.path)
        if endpoint is None or b"content-encoding" in head.asked:  # which takes a thread
            return None
        return Ask(head, name, endpoint)

    def learn(self, data: bytes, ask: Ask, body: bytes) -> None:
        """Know the head again, if whoever came with it may come in."""
        try:
            expect_key(ask.head.headers, self._core.keys)
            self.heads.learn(data, ask.head, body, know(ask))
        except ServiceError:  # which is said when it is answered
            return
        except Exception as fault:
            self._core.log.error("not_learnt", fault)

    def refuse(self, known: Known, body: bytes) -> Reply | None:
        """The answer if there is no room for it, or None if it is to be received."""
        try:
            return self._refusals.refuse(known, body)
        except Exception as fault:
            self._core.log.error("not_refused", fault)
            return None

    def receive(self, ask: Ask, caller: Caller) -> None:
        """Settle it: at once, or with others that come in this turn of the loop."""
        body = caller.body()
        if body is None or len(body) > self._core.settings.max_body_bytes:
            return caller.let_in(None)
        visit = _Visit(caller, ask, body, exchange_of(ask.head.asked))
        self._try(visit, self._admit)
        if visit.served is None:
            return self._settle(visit)
        self._came += 1
        if self._came == 1:
            asyncio.get_running_loop().call_soon(self._end_turn)
        if self._came == 1 and self._alone:
            self._serve([visit])
        else:
            self._visits.append(visit)

    def _admit(self, visit: _Visit) -> None:
        expect_key(visit.ask.head.headers, self._core.keys)
        found = visit.ask.endpoint.admit(visit.ask.name, visit.body, visit.exchange)
        if isinstance(found, Overloaded):
            self._refuse(visit, found)
        else:
            visit.served = found

    def _end_turn(self) -> None:
        """Serve those who came in it; who is the only one time after time is not made to wait."""
        self._alone = self._came == 1
        visits = [self._visits.popleft() for _ in range(min(_MOST, len(self._visits)))]
        self._came = len(self._visits)
        if self._visits:
            asyncio.get_running_loop().call_soon(self._end_turn)
        self._serve(visits)

    def _serve(self, visits: Sequence[_Visit]) -> None:
        try:
            for visit in visits:
                self._try(visit, self._read)
            self._run([visit for visit in visits if visit.calls])
        except Exception as fault:  # the app answers each on its own
            self._core.log.error("door_failed", fault)
        for visit in visits:
            self._settle(visit)

    def _read(self, visit: _Visit) -> None:
        assert visit.served is not None
        query_string, exchange = visit.ask.head.query_string, visit.exchange
        order = visit.ask.endpoint.order(visit.served, query_string, visit.body, exchange)
        visit.order = order
        visit.calls = visit.ask.endpoint.tiny_calls(order) or ()

    def _run(self, visits: Sequence[_Visit]) -> None:
        calls = [call for visit in visits for call in visit.calls]
        outcomes = iter(self._core.engine.run_together(calls))
        for visit in visits:
            visit.outcomes = list(islice(outcomes, len(visit.calls)))
            self._try(visit, self._write)

    def _write(self, visit: _Visit) -> None:
        order = visit.order
        assert order is not None
        outputs = []
        for outcome in visit.outcomes:
            if isinstance(outcome, ServiceError):
                return self._refuse(visit, outcome)
            outputs.append(outcome)
        whole = order.whole = visit.ask.endpoint.write(order, outputs, visit.exchange)
        self._dress(visit, 200, answer_headers(order.wanted, len(whole)), whole)

    def _try(self, visit: _Visit, step: Callable[[_Visit], None]) -> None:
        """Take a step; what goes wrong is the answer."""
        try:
            step(visit)
        except ServiceError as error:
            self._refuse(visit, error)
        except Exception as fault:
            self._core.log.error("internal_error", fault, request_id=visit.exchange.request_id)
            self._refuse(visit, UNFORESEEN)

    def _refuse(self, visit: _Visit, error: ServiceError) -> None:
        self._dress(visit, error.status, *error_parts(error, visit.exchange))

    def _dress(self, visit: _Visit, status: int, headers: Headers, body: bytes) -> None:
        """The reply; there is none yet if it is to be compressed, which takes a thread."""
        exchange = visit.exchange
        if compressible(headers, exchange.asked):
            if status == 200 and len(body) >= self._core.settings.compress_above:
                return
            headers = [*headers, VARY]
        visit.reply = reply(status, [*headers, *exchange.headers()], body)

    def _settle(self, visit: _Visit) -> None:
        try:
            if visit.reply is None and visit.caller.here:
                visit.exchange.order = visit.order
                visit.caller.let_in(visit.exchange)
            else:
                self._answer(visit)
        except Exception as fault:  # nobody else's connection suffers from it
            self._core.log.error("not_settled", fault, request_id=visit.exchange.request_id)
            visit.caller.drop()

    def _answer(self, visit: _Visit) -> None:
        """What there is no reply to has been left by its client."""
        if visit.reply is not None:
            visit.exchange.status = visit.reply[0]
        note(self._core, visit.exchange, "POST", visit.ask.endpoint.path)
        visit.caller.answer(visit.reply)
