"""The mutation run's own tests: each mutant is one change in one place, of code that runs."""

import ast
from pathlib import Path

import pytest

from .__main__ import GROUPS, Results
from .coverage_map import TestFile, nearest_first
from .mutants import Mutant, find_mutants
from .tree import Tree

ROOT = Path(__file__).parents[2]
MODULES = ["models/tree_paths.py", "scoring/job/finalize.py", "service/engine/executor.py"]


def changed(source: str) -> list[str]:
    return [mutant.apply(source) for mutant in find_mutants("module.py", source)]


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("x = a < b", ["x = (a <= b)"]),
        ("x = a is not b", ["x = (a is b)"]),
        ("x = a // b", ["x = (a * b)"]),
        ("x += é", ["x -= é"]),
        ("x = a and b or c", ["x = ((a and b) and c)", "x = (a or b) or c"]),
        ("x = not a", ["x = (a)"]),
        ("x = 'é', 5", ["x = 'é', (4)", "x = 'é', 6"]),
        ("x = True", ["x = False"]),
        ("x = a if b else c", ["x = a if (not (b)) else c"]),
        ("if a:\n    raise b", ["if (not (a)):\n    raise b", "if a:\n    pass"]),
        ("while a:\n    break", ["while (not (a)):\n    break", "while a:\n    continue"]),
        ("def f():\n    return x", ["def f():\n    return None"]),
        ("f(a,\n  b)\n", ["pass\n"]),
        ("'''Text of 3 lines.'''\nx: int | None", []),
        ("@d(1)\ndef f(a: 'b' = None) -> int | None:\n    return None", []),
        ("T = A | None\nx = f'{a + 1}'\n", []),
    ],
)
def test_the_changes_of_a_statement(source, wanted):
    assert sorted(changed(source)) == sorted(wanted)


@pytest.mark.parametrize("path", MODULES)
def test_every_mutant_of_a_module_is_another_program(path):
    source = (ROOT / path).read_text("utf-8")
    programs = [ast.dump(ast.parse(text)) for text in changed(source)]
    assert len(programs) > 30
    assert ast.dump(ast.parse(source)) not in programs
    keys = [mutant.key for mutant in find_mutants(path, source)]
    assert len(set(keys)) == len(keys)


@pytest.mark.slow
def test_a_mutant_is_taken_back_and_runs_end_with_their_processes(tmp_path):
    (tmp_path / "module.py").write_text("x = 1\n")
    (tmp_path / "test_it.py").write_text(
        "import module\n\ndef test_it():\n    assert module.x == 1\n"
    )
    (tmp_path / "test_long.py").write_text("import time\n\ndef test_it():\n    time.sleep(60)\n")
    tree = Tree(tmp_path)
    first, second = find_mutants("module.py", tree.source("module.py"))
    assert tree.pytest(["test_it.py"]) == 0
    for mutant in (first, second):
        with tree.changed(mutant):
            assert tree.pytest(["test_it.py"]) == 1
    assert tree.source("module.py") == "x = 1\n"
    assert tree.pytest(["test_it.py"]) == 0
    assert tree.pytest(["test_long.py"], timeout=3) is None


def test_the_fastest_test_that_executes_a_mutant_comes_first():
    mutant = Mutant("module.py", 3, 0, 4, 1, "a", "b")
    files = [
        TestFile("tests/service/test_a.py", 0.1, {"module.py": [4]}),
        TestFile("tests/test_slow.py", 9, {"module.py": [3]}),
        TestFile("tests/test_fast.py", 1, {"module.py": [1, 3]}),
        TestFile("tests/test_other.py", 0.2, {"module.py": [2, 5], "other.py": [3]}),
    ]
    nearest = [file.path for file in nearest_first(files, mutant)]
    assert nearest == ["tests/test_fast.py", "tests/test_slow.py", "tests/service/test_a.py"]
    unreached = Mutant("module.py", 9, 0, 9, 1, "a", "b")
    assert len(nearest_first(files, unreached)) == len(files)


@pytest.mark.parametrize("outcome", ["caught", "survived", "timed out"])
def test_an_outcome_is_kept_while_the_module_and_the_tests_are_the_same(tmp_path, outcome):
    module, test = tmp_path / "models" / "a.py", tmp_path / "tests" / "models" / "test_a.py"
    for file in (module, test):
        file.parent.mkdir(parents=True)
        file.write_text("x = 1\n")
    tree, results, (group, *_) = Tree(tmp_path), tmp_path / "results.ndjson", GROUPS
    mutant, other = find_mutants("models/a.py", "x = 1\n")
    Results(results, tree).add(mutant, group, outcome)
    assert Results(results, tree).outcome(mutant, group) == outcome
    assert Results(results, tree).outcome(other, group) is None
    test.write_text("x = 2\n")  # perhaps a test that catches it
    kept = outcome if outcome == "caught" else None
    assert Results(results, tree).outcome(mutant, group) == kept
    module.write_text("y = 1\n")
    assert Results(results, tree).outcome(mutant, group) is None


@pytest.mark.parametrize("places", [*GROUPS, *GROUPS.values()], ids=str)
def test_the_modules_and_tests_of_the_groups_are_there(places):
    for place in places:
        assert any(ROOT.glob(place)), place
