"""The process that tries inputs: `python -m tests.fuzz.child FOLDER PARSER SEED START COUNT SECONDS`.

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
from pathlib import Path
from typing import TextIO

from hsoftmax.models import UserError

from .mutation import mutate
from .parsers import PARSERS, Parser, Wrong

MAX_SECONDS, MAX_WAIT_SECONDS = 5, 30
MAX_MEMORY_BYTES = 1 << 30
MESSAGES, STATE, INPUT = "messages", "state", "input"
_MAX_ADDRESS_BYTES = 3 << 29  # beyond what the process has after its start


def main(folder: str, name: str, seed: str, start: str, count: str, seconds: str) -> None:
    """Try inputs; write a line of JSON for each failure, and one with the number of inputs."""
    work = Path(folder)
    parser = PARSERS[name](work)
    _limit_address_space()
    tried, stop = 0, time.monotonic() + float(seconds)
    with (work / MESSAGES).open("w") as messages:
        for number, content in _inputs(parser, name, seed, int(start), int(count)):
            if time.monotonic() > stop:
                break
            (work / INPUT).write_bytes(content)
            (work / STATE).write_text(str(number))
            if (failure := _try(parser, content)) is not None:
                (work / f"{INPUT}{number}").write_bytes(content)
                _say(messages, number=number, kind=failure[0], detail=failure[1])
            tried += 1
        _say(messages, tried=tried)


def _inputs(
    parser: Parser, name: str, seed: str, start: int, count: int
) -> Iterator[tuple[int, bytes]]:
    """Yield the valid inputs, the bombs and then mutations, from `start` on, by their numbers."""
    fixed = [*parser.seeds, *parser.bombs]
    for number in range(start, start + count):
        if number < len(fixed):
            yield number, fixed[number]
        else:
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
