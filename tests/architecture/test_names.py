"""Tests of the names in the packages: one public class and one module for each name."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from .imports import PACKAGES, read_modules

ROOT = Path(__file__).parents[2]
CLASS = re.compile(r"^ *class ([A-Za-z]\w*)[(\[:]", re.MULTILINE)

# For each package, the base names that several of its modules and folders have, and that mean the
# same in all of them. Any other name of a second module must say how it differs from the first.
SHARED = {
    "models": set(),
    "bundle": set(),
    "featurizers": set(),
    "runtime": {"adaptive", "levels", "tree"},  # a family on CUDA, and in native kernels
    "scoring": set(),
    "exporter": {
        "binary_tree", "top_k",  # the portable graphs, and those for CUDA
        "sparse_block_dot",  # the graphs of the family, and the source that reads it
    },
    "stores": set(),
    "service": {
        "errors",  # of the service, and of its jobs
        "health",  # of the process, and the gRPC service that reports it
        "infer",  # the request of tensors, over HTTP and over gRPC
        "openapi",  # the document, and the part of it under /v2
        "server",  # of HTTP, and of gRPC
        # A component, and the folder or the routes of it.
        "engine", "models", "operations", "page", "repository", "rollouts",
    },
    "hsoftmax": {
        "demo",  # the command, and its folder
        "score",  # scoring of many rows, by the command and by the client
    },
}  # fmt: skip


def public_classes(modules: Mapping[str, Path]) -> dict[str, list[str]]:
    """Return the modules that define each public class."""
    found = defaultdict(list)
    for module, path in modules.items():
        for name in CLASS.findall(path.read_text()):
            found[name].append(module)
    return found


def repeated_names(modules: Iterable[str]) -> dict[str, set[str]]:
    """Return for each package the base names that several modules or folders in it have."""
    found: dict[str, set[str]] = {package: set() for package in PACKAGES}
    seen = set()
    for module in set(modules) - set(PACKAGES):
        package, name = module.split(".")[0], module.split(".")[-1]
        if (package, name) in seen:
            found[package].add(name)
        seen.add((package, name))
    return found


@pytest.fixture(scope="module")
def modules() -> dict[str, Path]:
    return read_modules(ROOT)


def test_no_two_public_classes_have_one_name(modules):
    classes = public_classes(modules)
    assert {"HierarchicalSoftmax", "Settings", "Client"} <= set(classes)
    assert not {name: where for name, where in classes.items() if len(where) > 1}


def test_modules_of_a_package_share_a_name_only_where_it_means_the_same(modules):
    assert repeated_names(modules) == SHARED


def test_a_planted_second_name_is_found(modules, tmp_path):
    planted = tmp_path / "scheduler.py"
    planted.write_text("class Settings:\n    class LoadedBundle:\n        pass\n")
    with_it = {**modules, "service.jobs.scheduler": planted}
    repeated = {name for name, where in public_classes(with_it).items() if len(where) > 1}
    assert repeated == {"Settings", "LoadedBundle"}
    assert repeated_names(with_it)["service"] == SHARED["service"] | {"scheduler"}
