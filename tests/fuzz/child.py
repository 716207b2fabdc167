"""The process that tries inputs.

    python -m tests.fuzz.child FOLDER SEED PARSER:START:COUNT:SECONDS…

It writes each input to FOLDER before it tries it, so that the parent finds the one that ended the
process. Timers end the process, also in native code: after MAX_SECONDS of processor time, which do
not depend on what else the machine does, and after MAX_WAIT_SECONDS of waiting.
"""

import json
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from itertools import count as count_from
from itertools import islice
from pathlib import Path
from typing import TextIO

from hsoftmax.models import UserError

from .mutation import mutate
from .parsers import PARSERS, Parser, Wrong

MAX_SECONDS, MAX_WAIT_SECONDS = 5, 30
MAX_MEMORY_BYTES = 1 << 30
FIRST_MUTATION = 10_000  # lower numbers are valid inputs and bombs
MESSAGES, STATE, INPUT = "messages", "state", "input"
_MAX_ADDRESS_BYTES = 3 << 29  # beyond what the process has after its start


def main(folder: str, seed: str, *turns: str) -> None:
    """Try inputs of each parser; write a line of JSON for each failure and for each parser.

    A turn is `parser:start:count:seconds`. All valid inputs and bombs are tried, then mutations
    until the time of the turn is over.
    """
    work = Path(folder)
    with (work / MESSAGES).open("w") as messages:
        for turn in turns:
            name, start, count, seconds = turn.split(":")
            parser = PARSERS[name](_made(work / name))
            _limit_address_space()
            inputs = islice(_inputs(parser, name, seed, int(start)), int(count))
            _take_turn(work, name, parser, inputs, float(seconds), messages)


def _take_turn(
    work: Path,
    name: str,
    parser: Parser,
    inputs: Iterator[tuple[int, bytes]],
    seconds: float,
    messages: TextIO,
) -> None:
    tried, stop = 0, time.monotonic() + seconds
    for number, content in inputs:
        if number >= FIRST_MUTATION and time.monotonic() > stop:
            break
        (work / INPUT).write_bytes(content)
        (work / STATE).write_text(json.dumps([name, number, tried + 1]))
        if (failure := _try(parser, content)) is not None:
            (work / f"{name}{number}").write_bytes(content)
            kind, detail = failure
            _say(messages, parser=name, number=number, kind=kind, detail=detail)
        tried += 1
    _say(messages, parser=name, tried=tried)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _inputs(parser: Parser, name: str, seed: str, start: int) -> Iterator[tuple[int, bytes]]:
    """Yield valid inputs and bombs, then mutations, each with its number, from `start` on."""
    if start < FIRST_MUTATION:
        yield from list(enumerate([*parser.seeds, *parser.bombs()]))[start:]
    for number in count_from(max(start, FIRST_MUTATION)):
        yield number, mutate(parser.seeds, random.Random(f"{seed} {name} {number}"))


def _try(parser: Parser, content: bytes) -> tuple[str, str] | None:
    """Return the kind of the failure and its detail, or None if the input is handled."""
    _reset_peak_memory()
    _set_timers(MAX_SECONDS, MAX_WAIT_SECONDS)
    try:
        parser.run(content)
    except UserError:
        pass
    except Wrong as wrong:
        return "wrong answer", str(wrong)
    except Exception:
        return "traceback", traceback.format_exc(limit=-6)
    finally:
        _set_timers(0, 0)
    peak = _peak_memory()
    return None if peak <= MAX_MEMORY_BYTES else ("memory", f"{peak} bytes")


def _set_timers(seconds: float, wait_seconds: float) -> None:
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, wait_seconds)


def _limit_address_space() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + _MAX_ADDRESS_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def _reset_peak_memory() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak_memory() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _say(messages: TextIO, **message: object) -> None:
    messages.write(json.dumps(message) + "\n")
    messages.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
