"""`python -m tests.mutation`: a sample of mutants, and which of them the tests catch."""

import argparse
import json
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from .coverage_map import TestFile, measure, nearest_first
from .mutants import Mutant, find_mutants
from .tree import Tree

CHECKOUT = Path(__file__).parents[2]
BUILD = CHECKOUT / "build" / "mutation"
# The modules that are changed, and the tests that have to notice it: folders, or files by pattern.
GROUPS: Mapping[tuple[str, ...], tuple[str, ...]] = {
    ("models",): ("tests/models",),
    ("service/engine",): ("tests/service/engine",),
    ("scoring",): (
        "tests/scoring",
        "tests/hsoftmax/test_score*.py",
        "tests/service/streaming",
        "tests/service/api/test_labels.py",
    ),
    ("exporter/sources",): ("tests/exporter/sources",),
    ("service/access", "service/middleware/authentication.py"): ("tests/service/middleware",),
    ("service/repository/directory.py", "bundle/text_file.py", "bundle/labels.py"): (
        "tests/bundle",
        "tests/service/repository",
    ),
}
_MIN_TIMEOUT_S = 60.0
_TIMEOUT_FACTOR = 5  # of the seconds that the tests take without a change


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--mutants", type=int, default=200, help="size of the sample")
    parser.add_argument("--seed", type=int, default=0, help="another seed takes other mutants")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # and end the tests that run
    tree = Tree.copy_of(CHECKOUT, BUILD / "tree")
    sample = _sample(tree, options.mutants, options.seed)
    known = Results(BUILD / "results.ndjson", tree)
    groups = {group for _, group in sample if not known.all_of(group, sample)}
    tests = {group: _measured(tree, group) for group in GROUPS if group in groups}
    for number, (mutant, group) in enumerate(sample, 1):
        if known.outcome(mutant, group) is None:
            started = time.monotonic()
            known.add(mutant, group, _try(tree, mutant, tests[group]))
            seconds = time.monotonic() - started
            outcome = known.outcome(mutant, group)
            print(f"{number}/{len(sample)} {outcome} in {seconds:.1f} s  {mutant}", flush=True)
    _report(sample, known)


def _sample(tree: Tree, count: int, seed: int) -> list[tuple[Mutant, tuple[str, ...]]]:
    """Return the first mutants of a shuffled list, so that a larger sample has the smaller one."""
    mutants = [
        (mutant, group)
        for group in GROUPS
        for path in _modules(tree, group)
        for mutant in find_mutants(path, tree.source(path))
    ]
    random.Random(seed).shuffle(mutants)
    return mutants[:count]


def _modules(tree: Tree, group: tuple[str, ...]) -> list[str]:
    return _python_files(tree, group, "*.py")


def _tests(tree: Tree, group: tuple[str, ...]) -> list[str]:
    return _python_files(tree, GROUPS[group], "test_*.py")


def _python_files(tree: Tree, places: tuple[str, ...], pattern: str) -> list[str]:
    found = [path for place in places for path in tree.root.glob(place)]
    files = [f for path in found for f in (path.rglob(pattern) if path.is_dir() else [path])]
    return sorted(str(file.relative_to(tree.root)) for file in files)


def _measured(tree: Tree, group: tuple[str, ...]) -> list[TestFile]:
    return measure(tree, _tests(tree, group), BUILD / "coverage", BUILD / "tools")


def _try(tree: Tree, mutant: Mutant, tests: list[TestFile]) -> str:
    """Run the tests nearest to the mutant; return caught, survived or timed out."""
    chosen = nearest_first(tests, mutant)
    timeout = max(_MIN_TIMEOUT_S, _TIMEOUT_FACTOR * sum(file.seconds for file in chosen))
    with tree.changed(mutant):
        status = tree.pytest([file.path for file in chosen], timeout=timeout)
    return "timed out" if status is None else "caught" if status else "survived"


class Results:
    """The outcomes so far, in a file, so that a long run can be stopped and gone on with.

    An outcome is valid for one content of the module; one that is not "caught" also for one content
    of the tests.
    """

    def __init__(self, path: Path, tree: Tree) -> None:
        self._path = path
        self._tree = tree
        lines = path.read_text().splitlines() if path.exists() else []
        self._outcomes = {(r["key"], r["module"]): r for r in map(json.loads, lines)}

    def outcome(self, mutant: Mutant, group: tuple[str, ...]) -> str | None:
        record = self._outcomes.get((mutant.key, self._tree.sha256(mutant.path)))
        if record is None:
            return None
        is_valid = record["outcome"] == "caught" or record["tests"] == self._tests_hash(group)
        return str(record["outcome"]) if is_valid else None

    def all_of(self, group: tuple[str, ...], sample: list[tuple[Mutant, tuple[str, ...]]]) -> bool:
        return all(self.outcome(m, group) is not None for m, of in sample if of == group)

    def add(self, mutant: Mutant, group: tuple[str, ...], outcome: str) -> None:
        record = {
            "key": mutant.key,
            "module": self._tree.sha256(mutant.path),
            "tests": self._tests_hash(group),
            "outcome": outcome,
        }
        self._outcomes[record["key"], record["module"]] = record
        with self._path.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def _tests_hash(self, group: tuple[str, ...]) -> str:
        return self._tree.sha256(*_tests(self._tree, group))


def _report(sample: list[tuple[Mutant, tuple[str, ...]]], known: Results) -> None:
    outcomes = {mutant: known.outcome(mutant, group) for mutant, group in sample}
    for outcome in ("survived", "timed out"):
        missed = sorted(str(m) for m, got in outcomes.items() if got == outcome)
        print(f"\n{outcome}:" if missed else "", *missed, sep="\n  ")
    counts = Counter(outcomes.values())
    noticed = counts["caught"] + counts["timed out"]
    print(f"{counts['caught']} caught, {counts['timed out']} timed out, {counts['survived']} "
          f"survived of {len(outcomes)}: {noticed / max(1, len(outcomes)):.1%}")  # fmt: skip


if __name__ == "__main__":
    main()
