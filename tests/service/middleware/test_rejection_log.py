"""Rejections for want of room are logged in one line a second; every other request has its line."""

import asyncio
import io
import json

from hsoftmax.service.errors import Overloaded, TooLarge
from hsoftmax.service.health import Health
from hsoftmax.service.http.responses import send_error
from hsoftmax.service.logging import json_log
from hsoftmax.service.metrics import Metrics
from hsoftmax.service.middleware import rejection_log
from hsoftmax.service.middleware.request_log import RequestLogMiddleware

BUSY, LARGE = Overloaded("full: try later", 1), TooLarge("body: expected less")


class Route:
    """A route that rejects every request with one error."""

    def __init__(self, path, error):
        self.path, self.error = path, error

    async def __call__(self, scope, receive, send):
        scope["endpoint"] = self
        await send_error(send, self.error, scope)


def logged(level, *routes):
    """The events of one request to each of the routes, all of one app, after an interval."""
    stream = io.BytesIO()
    log = json_log(level, stream)

    async def main():
        app = RequestLogMiddleware(dispatch, Metrics(), log, Health())
        for route in routes:
            scope = {"type": "http", "method": "POST", "path": route.path, "headers": []}
            await app({**scope, "app": route}, None, send)
        await asyncio.sleep(0.2)  # the interval, and the delay of the writer of the log

    asyncio.run(main())
    return [json.loads(line) for line in stream.getvalue().splitlines()]


async def dispatch(scope, receive, send):
    await scope["app"](scope, receive, send)


async def send(message):
    """Take the response."""


def test_rejections_are_one_line_for_each_route(monkeypatch):
    monkeypatch.setattr(rejection_log, "_INTERVAL_S", 0.02)
    one, other, large = Route("/one", BUSY), Route("/other", BUSY), Route("/large", LARGE)
    events = logged("info", one, one, other, large)
    requests = [event for event in events if event["event"] == "request"]
    assert [event["code"] for event in requests] == ["too_large"]
    rejected = [event for event in events if event["event"] == "requests_rejected"]
    assert [(e["level"], e["route"], e["requests"]) for e in rejected] == [
        ("warning", "/one", 2),
        ("warning", "/other", 1),
    ]


def test_at_debug_each_rejection_has_its_line_too():
    route = Route("/one", BUSY)
    events = logged("debug", route, route)
    assert [event["code"] for event in events if event["event"] == "request"] == ["overloaded"] * 2
