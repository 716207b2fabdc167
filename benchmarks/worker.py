"""Runs a benchmark of a library that needs an interpreter of its own, in turns with the others.

Its script prints a line when it is ready. Then it reads a line for each call and prints the
microseconds that the call took.
"""

import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

_SCRIPTS = Path(__file__).parent


class Worker:
    """A process of another interpreter, which times one call at a time."""

    def __init__(self, python: str, script: str, *arguments: str) -> None:
        self._name = script
        self._process = subprocess.Popen(
            [python, "-I", "-W", "ignore", str(_SCRIPTS / f"{script}.py"), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._read_line()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait()

    def microseconds(self, request: object) -> float:
        """Return the time of one call, as the process measures it."""
        assert self._process.stdin is not None, "it is a pipe"
        print(request, file=self._process.stdin, flush=True)
        return float(self._read_line())

    def _read_line(self) -> str:
        assert self._process.stdout is not None, "it is a pipe"
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._name}: expected a line, got the end of the process")
        return line
