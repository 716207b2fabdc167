"""Runs children until the time is over, restarts one that ends early, and collects the failures."""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .child import INPUT, MAX_SECONDS, MAX_WAIT_SECONDS, MESSAGES, STATE

_WEIGHTS = {"hdf5": 5}  # parts of the time: each HDF5 file takes a process of its own
_ENOUGH = 10**9  # more inputs than any time allows
_START_SECONDS = 60  # that a child may take to build its parser's seeds


@dataclass(frozen=True)
class Failure:
    """An input that was not handled, and the file that it is saved in."""

    parser: str
    kind: str
    detail: str
    path: Path


@dataclass
class Report:
    """The inputs tried by parser, and the failures."""

    tried: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)


def run(parsers: Sequence[str], seed: str, seconds: float, saved: Path) -> Report:
    """Try inputs of each parser for its part of the time."""
    report = Report()
    for name in parsers:
        share = _WEIGHTS.get(name, 1) / sum(_WEIGHTS.get(other, 1) for other in parsers)
        stop, start = time.monotonic() + seconds * share, 0
        while (left := stop - time.monotonic()) > 0:
            next_start = run_child([name], seed, start, _ENOUGH, left, saved, report)
            start = _ENOUGH if next_start is None else next_start
        failures = sum(failure.parser == name for failure in report.failures)
        print(f"{name}: {report.tried[name]} inputs, {failures} failures", flush=True)
    return report


def run_child(
    names: Sequence[str],
    seed: str,
    start: int,
    count: int,
    seconds: float,
    saved: Path,
    report: Report,
) -> int | None:
    """Try up to `count` inputs of each parser in one child, from number `start` on.

    Returns the number of the input after the one that ended the child, None if none did.
    """
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
        limits = [seed, str(start), str(count), str(seconds)]
        code, errors = _end_of_child([folder, ",".join(names), *limits], seconds * len(names))
        work = Path(folder)
        for message in _messages(work):
            name = message["parser"]
            if "tried" in message:
                report.tried[name] += message["tried"]
            else:
                path = work / f"{name}{message['number']}"
                _save(report, saved, name, message["kind"], message["detail"], path)
        if code == 0:
            return None
        if not (work / STATE).exists():
            raise RuntimeError(f"{names}: the child ended before its first input: {errors}")
        name, number, tried = json.loads((work / STATE).read_text())
        report.tried[name] += tried
        _save(report, saved, name, _kind_of_end(code), errors[-2000:], work / INPUT)
        return number + 1


def _end_of_child(arguments: Sequence[str], seconds: float) -> tuple[int, str]:
    """Return exit status and error output of a child, -SIGKILL if it did not end in time."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.fuzz.child", *arguments]
    try:
        ended = subprocess.run(
            command, capture_output=True, timeout=seconds + _START_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return -signal.SIGKILL, "it did not end"
    return ended.returncode, ended.stderr.decode("utf-8", "replace")


def _messages(work: Path) -> list[dict]:
    path = work / MESSAGES
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _kind_of_end(code: int) -> str:
    if code == -signal.SIGPROF:
        return f"longer than {MAX_SECONDS} s"
    if code == -signal.SIGALRM:
        return f"waiting for longer than {MAX_WAIT_SECONDS} s"
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


def _save(report: Report, saved: Path, name: str, kind: str, detail: str, content: Path) -> None:
    saved.mkdir(parents=True, exist_ok=True)
    path = saved / f"{name}-{len(report.failures)}"
    shutil.copyfile(content, path)
    report.failures.append(Failure(name, kind, detail, path))
