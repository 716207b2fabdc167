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
from dataclasses import dataclass, field, replace
from pathlib import Path

from .child import INPUT, MAX_SECONDS, MAX_WAIT_SECONDS, MESSAGES, STATE

_WEIGHTS = {"hdf5": 5}  # parts of the time: each HDF5 file takes a process of its own
_EXPORTING = {"manifest", "onnx"}  # ONNX Runtime lets no process export that has served
_ENOUGH = 10**9  # more inputs than any time allows
_START_SECONDS = 60  # that a child may take to build its parser's seeds


@dataclass(frozen=True)
class Turn:
    """The part of one parser: its inputs from a number on, and its time for mutations."""

    parser: str
    seconds: float
    start: int = 0
    count: int = _ENOUGH

    def __str__(self) -> str:
        return f"{self.parser}:{self.start}:{self.count}:{self.seconds}"


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
    """Try inputs of each parser for its part of the time, in one child as long as it lives."""
    total = sum(_WEIGHTS.get(name, 1) for name in parsers)
    turns = [Turn(name, seconds * _WEIGHTS.get(name, 1) / total) for name in parsers]
    report = Report()
    for group in (
        [turn for turn in turns if turn.parser in _EXPORTING],
        [turn for turn in turns if turn.parser not in _EXPORTING],
    ):
        while group:
            group = run_child(group, seed, saved, report)
    return report


def run_child(turns: Sequence[Turn], seed: str, saved: Path, report: Report) -> list[Turn]:
    """Take the turns in one child; return those that are left if an input ends it."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
        seconds = sum(turn.seconds + _START_SECONDS for turn in turns)
        code, errors = _end_of_child([folder, seed, *map(str, turns)], seconds)
        work, left = Path(folder), list(turns)
        for message in _messages(work):
            name = message["parser"]
            if "tried" in message:
                report.tried[name] += message["tried"]
                left.pop(0)
            else:
                path = work / f"{name}{message['number']}"
                _save(report, saved, name, message["kind"], message["detail"], path)
        if not left:
            return []
        state = json.loads((work / STATE).read_text()) if (work / STATE).exists() else [None]
        if state[0] != left[0].parser:
            raise RuntimeError(
                f"{left[0].parser}: the child ended before its first input: {errors}"
            )
        name, number, tried = state
        report.tried[name] += tried
        _save(report, saved, name, _kind_of_end(code), errors[-2000:], work / INPUT)
        spent = time.monotonic() - began - sum(turn.seconds for turn in turns[: -len(left)])
        first = replace(left[0], seconds=max(0, left[0].seconds - spent), start=number + 1)
        return [first, *left[1:]]


def _end_of_child(arguments: Sequence[str], seconds: float) -> tuple[int, str]:
    """Return exit status and error output of a child, -SIGKILL if it did not end in time."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.fuzz.child", *arguments]
    try:
        ended = subprocess.run(command, capture_output=True, timeout=seconds, check=False)
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
