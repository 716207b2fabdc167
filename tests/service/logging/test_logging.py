"""Lines of the log stay whole and in order, with any content and from any source."""

import asyncio
import io
import json
import logging
import os
import pty
import subprocess
import sys
import time
import warnings

import pytest

from hsoftmax.service.logging import json_log
from hsoftmax.service.logging.capture import logging_captured, stderr_captured


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


def test_an_exception_is_an_error_with_its_traceback():
    stream = io.BytesIO()
    log = json_log("info", stream)
    try:
        raise KeyError("lost")
    except KeyError as error:
        log.exception("failed", rows=1)
        log.error("failed", exc_info=error)
    for line in _lines(stream):
        assert (line["level"], line["event"]) == ("error", "failed")
        assert line["exception"].endswith("KeyError: 'lost'")
        assert "exc_info" not in line


def test_an_event_loop_does_not_wait_for_a_reader_that_reads_nothing(monkeypatch):
    monkeypatch.setattr("hsoftmax.service.logging.writer._MAX_WAITING", 3_000)
    reader, writer = os.pipe()
    log = json_log("info", os.fdopen(writer, "wb", buffering=0))

    async def many_events() -> float:
        log.info("first")
        await asyncio.sleep(0.2)  # so that there is a thread, which soon waits for the pipe
        started = time.monotonic()
        for number in range(5_000):
            log.info("more", number=number, text="x" * 100)
            await asyncio.sleep(0)
        seconds = time.monotonic() - started
        await asyncio.sleep(0.1)  # an event loop that ends at once does not wake the thread
        return seconds

    assert asyncio.run(many_events()) < 5
    with os.fdopen(reader) as lines:
        told = [json.loads(next(lines)) for _ in range(1_000)]
        events = [line["event"] for line in told]
        while events[-1] != "log_lines_lost":
            told.append(json.loads(next(lines)))
            events.append(told[-1]["event"])
    kept = [line["number"] for line in told[1:-1]]
    assert kept == sorted(kept)
    assert told[-1]["level"] == "warning"
    assert len(kept) + told[-1]["lines"] == 5_000


SAYS = """
from hsoftmax.service.logging import stderr_log
stderr_log("info").bind(worker=3).info("loaded", refused={"words/2": "short"})
"""


def _said_at_terminal(**environment: str) -> str:
    master, terminal = pty.openpty()
    subprocess.run([sys.executable, "-c", SAYS], stderr=terminal, check=True,
                   env=os.environ | environment)  # fmt: skip
    os.close(terminal)
    said = os.read(master, 10_000).decode()
    os.close(master)
    return said


def test_a_terminal_gets_readable_lines():
    said = _said_at_terminal(NO_COLOR="1")
    assert "\x1b" not in said
    time_of_day, level, *rest = said.split()
    assert time.strptime(time_of_day.partition(".")[0], "%H:%M:%S")
    assert (level, rest[0]) == ("[info", "]")
    assert rest[1:] == ["loaded", "refused={'words/2':", "'short'}", "worker=3"]
    assert "\x1b[" in _said_at_terminal()


def test_a_pipe_gets_json():
    done = subprocess.run([sys.executable, "-c", SAYS], capture_output=True, check=True)
    (line,) = done.stderr.splitlines()
    assert json.loads(line)["refused"] == {"words/2": "short"}


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        (
            "\x1b[0;93m2026-05-09 10:11:12.123456789 [W:onnxruntime:Default, device.cc:164 "
            "Discover] GPU device discovery failed: a, b\x1b[m\n",
            {
                "level": "warning",
                "event": "onnxruntime",
                "message": "GPU device discovery failed: a, b",
                "source": "device.cc:164 Discover",
            },
        ),
        (
            "free(): invalid\n",
            {"level": "warning", "event": "stderr", "message": "free(): invalid"},
        ),
        ("no end", {"level": "warning", "event": "stderr", "message": "no end"}),
    ],
)
def test_a_line_on_stderr_is_a_line_of_the_log(written, wanted):
    stream = io.BytesIO()
    with stderr_captured(json_log("info", stream)):
        os.write(2, written.encode())
    (line,) = _lines(stream)
    assert line.pop("timestamp")
    assert line == wanted


def test_stderr_is_as_before_once_it_is_captured_no_more(capfd):
    stream = io.BytesIO()
    with stderr_captured(json_log("info", stream)):
        os.write(2, b"inside\n")
    os.write(2, b"outside\n")
    assert capfd.readouterr().err == "outside\n"
    assert [line["message"] for line in _lines(stream)] == ["inside"]


FAILS = """
import sys
import numpy as np
from hsoftmax.service.logging.capture import stderr_captured
from hsoftmax.service.logging import stderr_log
import onnxruntime

with stderr_captured(stderr_log("info")):
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    feeds = {"hidden": np.zeros((1, 8), np.float32), "k": [3000], "max_blocks": [0]}
    try:
        session.run(None, {name: np.asarray(value) for name, value in feeds.items()})
    except Exception:
        pass
"""


def test_what_onnx_runtime_writes_is_captured(repository):
    """The real one, at its default severity: this test fails if its format changes."""
    graph = repository / "words" / "2" / "top_k.onnx"
    command = [sys.executable, "-c", FAILS, graph]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, *_ = [json.loads(line) for line in done.stderr.splitlines()]
    assert (first["level"], first["event"]) == ("error", "onnxruntime")
    assert "k argument [3000]" in first["message"]
    assert "sequential_executor.cc" in first["source"]


def test_warnings_and_other_loggers_are_lines_of_the_log():
    stream = io.BytesIO()
    with logging_captured(json_log("info", stream)), warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)  # catch_warnings has put Python's own function back
        logging.captureWarnings(True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        logging.getLogger("uvicorn.error").info("Started %d", 1)
        logging.getLogger("asyncio").info("not worth a line")
        try:
            raise OSError("gone")
        except OSError:
            logging.getLogger("asyncio").exception("callback failed")
    warned, started, failed = _lines(stream)
    assert (warned["level"], warned["event"]) == ("warning", "warnings")
    assert "DeprecationWarning: old" in warned["message"]
    assert (started["level"], started["event"], started["message"]) == (
        "info", "uvicorn", "Started 1",
    )  # fmt: skip
    assert (failed["level"], failed["event"], failed["message"]) == (
        "error", "asyncio", "callback failed",
    )  # fmt: skip
    assert failed["exception"].endswith("OSError: gone")
