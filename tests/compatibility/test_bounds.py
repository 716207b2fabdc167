"""A lower bound of pyproject.toml is tested only if the resolver can choose it."""

from pathlib import Path

import pytest

from .bounds import false_bounds, lowest_versions

ROOT = Path(__file__).parents[2]
PYPROJECT = """
[project]
name = "sample"
dependencies = ["One.Name>=1.2"]
[project.optional-dependencies]
inner = ["two[fast,small]>=3,<4", "unbounded"]
other = ["three>=5"]
dev = ["sample[inner]", "four>=0.0.20"]
"""


@pytest.fixture
def lowest(tmp_path) -> dict[str, str]:
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    return lowest_versions(tmp_path / "pyproject.toml", "dev")


def test_bounds_are_those_of_the_project_and_of_the_extras_within_the_extra(lowest):
    assert lowest == {"one-name": "1.2", "two": "3", "four": "0.0.20"}


def test_a_bound_that_was_chosen_is_true(lowest):
    assert false_bounds(lowest, "one-name==1.2.0\ntwo==3.0.0\nfour==0.0.20\nindirect==7\n") == []


def test_a_bound_that_was_passed_over_is_named_with_the_version_to_write(lowest):
    [error] = false_bounds(lowest, "one-name==1.2\ntwo==3.1.0\nfour==0.0.20\n")
    assert error == (
        "two: expected version 3, which pyproject.toml names as the lowest, but 3.1.0 was"
        " resolved: raise the bound"
    )


def test_a_dependency_that_was_not_resolved_is_an_error(lowest):
    [error] = false_bounds(lowest, "two==3\nfour==0.0.20\n")
    assert error.startswith("one-name: expected version 1.2")


def test_every_dependency_of_the_tests_has_a_lower_bound():
    text = (ROOT / "pyproject.toml").read_text()
    lowest = lowest_versions(ROOT / "pyproject.toml", "dev")
    assert {"numpy", "uvicorn", "spox", "h5py", "pytest"} <= set(lowest)
    assert all(f">={version}" in text for version in lowest.values())
