"""Lines of the log: whole and in order, whatever is in them and wherever they come from."""

import asyncio
import io
import json

from hsoftmax.service.logging import json_log


def _lines(stream: io.BytesIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_lines_of_an_event_loop_are_written_together_and_each_has_its_own_time():
    stream = io.BytesIO()
    log = json_log("info", stream).bind(worker=3)

    async def two_events() -> None:
        log.info("first", rows=1)
        await asyncio.sleep(0.01)
        log.info("second", rows=2)
        assert not stream.getvalue()
        await asyncio.sleep(0.1)

    asyncio.run(two_events())
    first, second = _lines(stream)
    assert first["timestamp"] < second["timestamp"]
    assert first | {"timestamp": ""} == {
        "timestamp": "",
        "level": "info",
        "event": "first",
        "worker": 3,
        "rows": 1,
    }
    assert second["event"] == "second"


def test_text_that_is_no_utf_8_costs_no_other_line():
    stream = io.BytesIO()
    log = json_log("info", stream)

    async def three_events() -> None:
        log.info("before")
        log.info("odd", path="a\udcffb")
        log.info("after")
        await asyncio.sleep(0.1)

    asyncio.run(three_events())
    assert [line["event"] for line in _lines(stream)] == ["before", "odd", "after"]


def test_events_below_the_level_are_not_written():
    stream = io.BytesIO()
    json_log("warning", stream).info("request")
    assert not stream.getvalue()
