"""Tests of the imports: only allowed packages, only lower floors, and no circles."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from .imports import (
    INSTALLED,
    PACKAGES,
    Graph,
    find_circle,
    imported_roots,
    module_graph,
    read_modules,
    room_graph,
    room_of,
)

ROOT = Path(__file__).parents[2]

# For each package, the packages of the project that it may import.
DIRECTION = {
    "models": set(),
    "bundle": {"models"},
    "featurizers": {"models", "bundle", "runtime"},
    "runtime": {"models", "bundle"},
    "scoring": {"models", "bundle", "featurizers"},
    "exporter": {"models", "bundle", "featurizers", "runtime"},
    "stores": {"models", "bundle"},
    "service": {"models", "bundle", "featurizers", "runtime", "scoring", "stores"},
    "hsoftmax": {
        "models", "bundle", "featurizers", "runtime", "scoring", "exporter", "stores", "service",
    },
}  # fmt: skip
# For each package, the libraries that it must not import.
FOREIGN = {
    "models": {"onnx", "onnxruntime", "spox", "torch", "fastapi", "os", "time", "logging"},
    "bundle": {"onnx", "onnxruntime", "spox", "fastapi"},
    "featurizers": {
        "onnx", "onnxruntime", "spox", "torch", "fastapi", "fasttext", "gensim", "os", "time",
        "logging",
    },
    "runtime": {"onnx", "spox", "torch", "fastapi"},
    "scoring": {"onnx", "onnxruntime", "spox", "torch", "fastapi"},
    "exporter": {"fastapi", "uvicorn"},
    "stores": {"onnx", "onnxruntime", "spox", "torch", "fastapi", "pydantic"},
    "service": {"spox", "onnx", "torch", "obstore"},
    "hsoftmax": set(),
}  # fmt: skip
# For each package its rooms (a folder or a file), the lowest floor first. A room may import rooms
# on lower floors only.
FLOORS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "models": (
        ("choices", "errors"),
        ("arrays", "decoder_errors"),
        ("levels", "npy_header", "probability", "projected", "ranking", "seeded_noise", "storage",
         "tree_paths", "validation"),
        ("adaptive_softmax", "hierarchical_softmax", "huffman_softmax", "sparse_block_dot"),
        ("families", "taxonomy", "theano"),
        ("public",),
    ),
    "bundle": (("manifest", "regular_file", "text_file"), ("directory",), ("labels",)),
    "featurizers": (
        ("errors", "limits", "matrix", "ngrams", "vocabulary"),
        ("words",),
        ("fasttext", "gensim"),
        ("featurizer",),
        ("example", "files"),
    ),
    "runtime": (
        ("choices", "device_memory", "device_runs", "encoder_inputs", "native", "tokens",
         "weights_guard"),
        ("cuda", "devices", "word_tokenizer"),
        ("encoder_batches", "sessions", "tokenizer"),
        ("encoder", "hierarchy"),
        ("row_encoder",),
    ),
    "scoring": (
        ("choices", "errors", "numbers", "overflow", "threshold"),
        ("bundle_info", "label_search", "migrations"),
        ("label_suggestions", "task", "text_rows"),
        ("requirements",),
        ("row_targets",),
        ("row_batch",),
        ("graph_request",),
        ("results",),
        ("failures", "formats", "perplexity"),
        ("job", "stream"),
        ("public",),
    ),
    "exporter": (
        ("choices", "errors", "graphs"),
        ("files",),
        ("sources", "staging", "storage", "verification"),
        ("encoder",),
        ("export",),
        ("public",),
    ),
    "stores": (
        ("errors",),
        ("url",),
        ("objects",),
        ("cache", "versions"),
        ("download", "new_object", "upload"),
        ("mirror",),
    ),
    "service": (
        ("errors", "metrics", "page", "resources", "statistics", "suggestions"),
        ("codecs", "settings"),
        ("logging",),
        ("access", "engine", "repository", "workers"),
        ("health", "http"),
        ("inference",),
        ("jobs", "middleware", "streaming"),
        ("context",),
        ("control",),
        ("api", "grpc"),
        ("app",),
        ("server",),
        ("public",),
    ),
    "hsoftmax": (
        ("benchmark", "hierarchy", "inputs", "latest_version", "missing_packages", "options",
         "progress", "ray_serve", "results", "score_request", "stream_rows"),
        ("client", "validation"),
        ("demo", "local_model", "runners"),
        ("commands",),
        ("cli",),
        ("__main__",),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def modules() -> Graph:
    return module_graph(ROOT)


def wrong_directions(modules: Graph) -> list[tuple[str, str]]:
    """Return the imports from packages that the importing package must not use."""
    return [
        (name, target)
        for name, targets in modules.items()
        for target in targets
        for here, there in [(room_of(name)[0], room_of(target)[0])]
        if here != there and there not in DIRECTION[here]
    ]


def upward_imports(modules: Graph) -> list[tuple[str, str]]:
    """Return the imports from rooms that are not on a lower floor."""
    found = []
    for name, targets in modules.items():
        package, room = room_of(name)
        floor = {r: i for i, rooms in enumerate(FLOORS[package]) for r in rooms}
        for target in targets:
            there, other = room_of(target)
            if there == package and room and other not in {"", room}:
                found += [(name, target)] if floor[other] >= floor[room] else []
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_every_room_of_a_package_has_its_floor(modules, package):
    rooms = [room for floor in FLOORS[package] for room in floor]
    assert sorted(rooms) == sorted(room_graph(modules, package))


def test_packages_import_in_one_direction(modules):
    assert not wrong_directions(modules)


def test_rooms_import_only_lower_floors(modules):
    assert not upward_imports(modules)


def test_there_are_no_circles(modules):
    assert find_circle(modules) is None


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_works_without_the_libraries_of_others(package):
    paths = [path for name, path in read_modules(ROOT).items() if room_of(name)[0] == package]
    assert paths
    for path in paths:
        assert not imported_roots(path) & FOREIGN[package], path


def test_devices_are_known_without_onnxruntime():
    assert "onnxruntime" not in imported_roots(ROOT / "runtime" / "devices.py")


def test_sessions_are_opened_in_one_place():
    openers = [
        name for name, path in read_modules(ROOT).items() if "InferenceSession(" in path.read_text()
    ]
    assert openers == ["runtime.sessions.graph_file"]


def test_the_one_import_name_is_the_installed_one():
    """A bare `import models` would load a second copy of every module, and of every error class."""
    bare = set(PACKAGES) - {INSTALLED}
    folders = [*PACKAGES, "tests", "benchmarks", "examples"]
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert paths
    for path in paths:
        assert not imported_roots(path) & bare, path


def test_nothing_is_ever_unpickled():
    for path in read_modules(ROOT).values():
        assert not imported_roots(path) & {"pickle", "dill", "joblib"}, path
        assert "allow_pickle=True" not in path.read_text(), path


AT_MODULE_LEVEL = "{line}\n"
IN_A_FUNCTION = "def planted():\n    {line}\n"
FOR_TYPES = "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    {line}\n"
PLACES = [AT_MODULE_LEVEL, IN_A_FUNCTION, FOR_TYPES]


@pytest.fixture
def copy(tmp_path) -> Path:
    """Copy of the packages, which a test may change."""
    ignored = shutil.ignore_patterns("__pycache__", *(PACKAGES[:-1]))
    for package in PACKAGES:
        ignore = ignored if package == INSTALLED else shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignore)
    return tmp_path


def plant(root: Path, file: str, place: str, line: str) -> Graph:
    path = root / file
    path.write_text(f"{path.read_text()}\n\n{place.format(line=line)}")
    return module_graph(root)


@pytest.mark.parametrize("place", PLACES)
def test_a_planted_import_upward_is_found(copy, place):
    planted = plant(
        copy, "service/engine/scheduler.py", place, "from hsoftmax.service.app import create_app"
    )
    assert upward_imports(planted) == [("service.engine.scheduler", "service.app")]


@pytest.mark.parametrize("place", PLACES)
def test_a_planted_import_of_the_wrong_package_is_found(copy, place):
    planted = plant(copy, "exporter/staging.py", place, "from hsoftmax import scoring")
    assert wrong_directions(planted) == [("exporter.staging", "scoring")]


@pytest.mark.parametrize("place", PLACES)
def test_a_planted_circle_is_found(copy, place):
    planted = plant(copy, "scoring/job/spec.py", place, "from .runner import run_job")
    circle = find_circle(planted)
    assert circle is not None
    assert {"scoring.job.spec", "scoring.job.runner"} <= set(circle)
