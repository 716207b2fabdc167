"""The test files that execute each line, and the seconds that each of them takes.

Each test file is run once under coverage, which `make mutants` installs beside the project.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from .mutants import Mutant
from .tree import Tree


@dataclass(frozen=True)
class TestFile:
    """One test file: its seconds, and the lines that it executes of each module."""

    __test__ = False

    path: str
    seconds: float
    lines: dict[str, list[int]]

    def executes(self, mutant: Mutant) -> bool:
        lines = range(mutant.line, mutant.end_line + 1)
        return any(line in lines for line in self.lines.get(mutant.path, ()))


def measure(tree: Tree, paths: Iterable[str], cache: Path, tools: Path) -> list[TestFile]:
    """Return the measured test files. A file that does not pass without any change is left out.

    A measurement is kept while the file's content is the same.
    """
    cache.mkdir(parents=True, exist_ok=True)
    measured = []
    for path in paths:
        record = cache / f"{tree.sha256(path)[:16]}.json"
        if not record.exists():
            print(f"measuring {path}", flush=True)
            record.write_text(json.dumps(_measure(tree, path, cache, tools)))
        if (content := json.loads(record.read_text())) is None:
            print(f"left out, as it does not pass without any change: {path}", flush=True)
        else:
            measured.append(TestFile(path, content["seconds"], content["lines"]))
    return measured


def nearest_first(files: Iterable[TestFile], mutant: Mutant) -> list[TestFile]:
    """Return the files that execute the mutant, or all if none does; the fastest first.

    Those of `tests/service` come last, as they set ONNX Runtime's thread pool for the process.
    """
    files = list(files)
    executing = [file for file in files if file.executes(mutant)]
    in_service = f"tests{os.sep}service"
    return sorted(executing or files, key=lambda f: (f.path.startswith(in_service), f.seconds))


def _measure(tree: Tree, path: str, folder: Path, tools: Path) -> dict[str, object] | None:
    data, report = folder / "data", folder / "report.json"
    run = ("-m", "coverage", "run", f"--data-file={data}", f"--source={tree.root}")
    started = perf_counter()
    if tree.pytest([path], under=run, path=[tools]) != 0:
        return None
    seconds = perf_counter() - started
    subprocess.run(
        [sys.executable, "-m", "coverage", "json", f"--data-file={data}", "-q", "-o", report],
        cwd=tree.root, env={**os.environ, "PYTHONPATH": str(tools)}, check=True,
    )  # fmt: skip
    modules = json.loads(report.read_text())["files"]
    return {
        "seconds": seconds,
        "lines": {
            name.removeprefix(f"hsoftmax{os.sep}"): module["executed_lines"]
            for name, module in modules.items()
            if module["executed_lines"]
        },
    }
