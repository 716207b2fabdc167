"""A copy of the project in which modules are changed and tests run, never the checkout itself."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from .mutants import Mutant

_PYTEST = ("-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider", "--timeout", "60",
           "--hypothesis-seed", "0")  # fmt: skip


@dataclass(frozen=True)
class Tree:
    """The copy's root."""

    root: Path

    @classmethod
    def copy_of(cls, checkout: Path, to: Path) -> "Tree":
        """Copy the files that git knows or would add. Links stay links."""
        shutil.rmtree(to, ignore_errors=True)
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=checkout, capture_output=True, check=True,
        ).stdout.decode()  # fmt: skip
        for name in filter(None, listed.split("\0")):
            if os.path.lexists(checkout / name):
                (to / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(checkout / name, to / name, follow_symlinks=False)
        return cls(to)

    def source(self, path: str) -> str:
        return (self.root / path).read_text("utf-8")

    def sha256(self, *paths: str) -> str:
        """Return one hash of these files."""
        contents = b"".join(hashlib.sha256((self.root / p).read_bytes()).digest() for p in paths)
        return hashlib.sha256(contents).hexdigest()

    @contextmanager
    def changed(self, mutant: Mutant) -> Iterator[None]:
        """Write the mutant while the block runs. Python's caches see another time of change."""
        path = self.root / mutant.path
        original, stat = path.read_text("utf-8"), path.stat()
        try:
            path.write_text(mutant.apply(original), "utf-8")
            os.utime(path, (stat.st_atime, stat.st_mtime + 1 + mutant.number))
            yield
        finally:
            path.write_text(original, "utf-8")
            os.utime(path, (stat.st_atime, stat.st_mtime))

    def pytest(
        self, files: Sequence[str], *, timeout: float | None = None, under: Sequence[str] = (),
        path: Sequence[Path] = (),
    ) -> int | None:  # fmt: skip
        """Run test files in this order until one test fails; return the exit status.

        Returns None after the timeout. All processes that the tests started end with them.
        """
        search = os.pathsep.join(map(str, (self.root, *path)))
        process = subprocess.Popen(
            [sys.executable, *under, *_PYTEST, *files],
            cwd=self.root, env={**os.environ, "PYTHONPATH": search}, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
