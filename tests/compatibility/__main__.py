"""Runs the tests with each promised Python, and with the lowest and the newest packages.

`make compat` runs it. COMPAT=<name> runs one environment only; arguments go to pytest.
"""

import os
import sys
from pathlib import Path

from .environments import (
    FOLDER,
    PYPROJECT,
    Environment,
    FailedStep,
    all_environments,
    install,
    run_tests,
)
from .interpreters import MissingPython, find_interpreters, promised_versions
from .results import Result, read_report, table


def main() -> int:
    """Run the environments one after the other, print the table, and return the exit code."""
    environments = all_environments(promised_versions(PYPROJECT))
    try:
        chosen = _choose(environments, os.environ.get("COMPAT", ""))
        interpreters = find_interpreters(dict.fromkeys(e.python for e in chosen))
    except (LookupError, MissingPython) as error:
        print(f"compat: {error.args[0]}", file=sys.stderr)
        return 1
    FOLDER.mkdir(parents=True, exist_ok=True)
    results = [_run(environment, interpreters[environment.python]) for environment in chosen]
    print(table(results))
    return 0 if all(result.is_success for result in results) else 1


def _choose(environments: list[Environment], name: str) -> list[Environment]:
    chosen = [environment for environment in environments if name in ("", environment.name)]
    if not chosen:
        names = ", ".join(environment.name for environment in environments)
        raise LookupError(f"COMPAT: expected one of {names}, got {name!r}")
    return chosen


def _run(environment: Environment, interpreter: Path) -> Result:
    print(
        f"== {environment.name}: Python {environment.python}, {environment.packages} packages",
        flush=True,
    )
    try:
        install(environment, interpreter)
    except FailedStep as error:
        print(f"compat: {environment.name}: {error}", file=sys.stderr)
        return Result(environment.name, environment.python)
    report = run_tests(environment, sys.argv[1:])
    return read_report(environment.name, environment.python, report)


if __name__ == "__main__":
    sys.exit(main())
