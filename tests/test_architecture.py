"""Who may import whom: service -> scoring -> bundle -> models <- bundle <- exporter."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "models": {"bundle", "scoring", "exporter", "service", "hsoftmax", "onnx", "onnxruntime",
               "spox", "torch", "fastapi", "os", "time", "logging"},
    "bundle": {"scoring", "exporter", "service", "hsoftmax", "onnx", "onnxruntime", "spox",
               "fastapi"},
    "scoring": {"exporter", "service", "hsoftmax", "onnx", "onnxruntime", "spox", "torch",
                "fastapi"},
    "exporter": {"service", "scoring", "hsoftmax", "fastapi", "uvicorn"},
    "service": {"exporter", "hsoftmax", "spox", "onnx", "torch"},
}  # fmt: skip


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_imports_only_what_its_layer_may(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        assert not imported(path) & FORBIDDEN[package], path


def test_nothing_is_ever_unpickled():
    for package in FORBIDDEN:
        for path in (ROOT / package).rglob("*.py"):
            assert not imported(path) & {"pickle", "dill", "joblib"}, path
            assert "allow_pickle=True" not in path.read_text(), path
