"""Makes the archive of the check: python -m tests.gpu_check.archive FILE

It holds `gpu_check/` with the modules that run there, `hsoftmax/` with the parts that plan and run
graphs, and `bundles/` with graphs, weights and reference numbers.
"""

import shutil
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import spox
import spox.opset.ai.onnx.v21 as op

from hsoftmax import bundle, exporter, models
from hsoftmax.exporter.export import PrecisionOptions

from .cases import Case, cases
from .reference_numbers import reference_numbers

ROOT = Path(__file__).parents[2]
MAX_BYTES = 60 * 10**6
FOLDER = "gpu-check"
_CHECK = ("__init__", "__main__", "bundles", "device", "numbers", "speed", "table")
_PACKAGE = (
    "models", "runtime/__init__.py", "runtime/cuda", "runtime/device_memory.py",
    "runtime/device_runs.py", "runtime/devices.py",
)  # fmt: skip


def make_folder(folder: Path, of: Iterable[Case]) -> None:
    """Write everything that the check needs into an empty folder."""
    for name in _CHECK:
        _copy(Path(__file__).with_name(f"{name}.py"), folder / "gpu_check" / f"{name}.py")
    _copy(ROOT / "hsoftmax" / "__init__.py", folder / "hsoftmax" / "__init__.py")
    for part in _PACKAGE:
        _copy(ROOT / part, folder / "hsoftmax" / part)
    bundles = folder / "bundles"
    for case in of:
        _write_bundle(bundles / case.name.replace(", ", "-").replace(" ", "_"), case)
    onnx.save(_copy_graph(), folder / "copy.onnx")


def make_archive(file: Path, of: Iterable[Case]) -> None:
    """Write the archive. Raises SystemExit if it is too large to carry along."""
    with TemporaryDirectory() as parent:
        folder = Path(parent, FOLDER)
        make_folder(folder, of)
        file.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(file, "w:gz") as archive:
            archive.add(folder, FOLDER)
    size = file.stat().st_size
    if size > MAX_BYTES:
        raise SystemExit(f"{file}: expected at most {MAX_BYTES:,} bytes, got {size:,}")
    print(f"{file}: {size:,} bytes")


def _copy(source: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, to, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copyfile(source, to)


def _write_bundle(folder: Path, case: Case) -> None:
    """Export the bundle with graphs for CUDA, and store what the reference says of its weights."""
    options = PrecisionOptions(case.precision)
    destination = exporter.parse_destination(folder / "1")
    made = exporter.export_model(case.model, destination, precision_options=options, cuda=True)
    manifest = made.manifest
    stored = models.from_tensors(manifest.family, bundle.load_tensors(made), manifest.attributes)
    sample = manifest.tasks.get("sample")
    steps = 1 if sample is None else sample.noise_per_sample
    np.savez_compressed(folder / "reference.npz", **reference_numbers(stored, steps))


def _copy_graph() -> onnx.ModelProto:
    """Return y = -x, which reads and writes each number once."""
    x = spox.argument(spox.Tensor(np.float32, ("n",)))
    return spox.build({"x": x}, {"y": op.neg(x)})


if __name__ == "__main__":
    make_archive(Path(sys.argv[1]), cases())
