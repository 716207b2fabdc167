"""Reads the bundles of the archive, without the package that checks manifests."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hsoftmax import models
from hsoftmax.models.arrays import Array
from hsoftmax.runtime.cuda import lowered_files

LOWERING = "cuda"


@dataclass(frozen=True)
class StoredBundle:
    """A bundle and the reference numbers beside it.

    Attributes:
        cases: by name, the inputs and expected outputs
    """

    name: str
    path: Path
    manifest: Mapping[str, Any]
    tensors: Mapping[str, Array]
    cases: Mapping[str, Mapping[str, Array]]

    @property
    def tasks(self) -> list[str]:
        return sorted(self.manifest["tasks"])

    @property
    def lowered_tasks(self) -> list[str]:
        tasks = self.manifest["tasks"].items()
        return sorted(task for task, graph in tasks if LOWERING in graph.get("lowerings", {}))

    @property
    def lowered_graphs(self) -> list[Path]:
        return [self.path / name for name in lowered_files(self.manifest["files"])]

    @property
    def model(self) -> models.Model:
        manifest = self.manifest
        return models.from_tensors(manifest["family"], self.tensors, manifest["attributes"])

    @property
    def weight_bytes(self) -> int:
        return 4 * sum(array.size for array in self.tensors.values())

    @property
    def rounds_hidden(self) -> bool:
        """True if portable graphs round hidden rows, which the reference does not."""
        manifest = self.manifest
        is_int8 = manifest["precision"] == "int8"
        return bool(is_int8 and manifest["family"] == "HierarchicalSoftmax")

    def portable_graph(self, task: str) -> Path:
        return self.path / str(self.manifest["tasks"][task]["file"])

    def noise_per_sample(self) -> int:
        inputs = self.manifest["tasks"]["sample"]["inputs"]
        return next(int(port["shape"][-1]) for port in inputs if port["name"] == "noise")


def read_bundles(folder: Path) -> Iterator[StoredBundle]:
    """Yield every bundle of a folder, by name."""
    for path in sorted(folder.iterdir()):
        manifest = json.loads((path / "1" / "bundle.json").read_text("utf-8"))
        tensors = _read_tensors(path / "1" / "weights.bin", manifest["tensors"])
        yield StoredBundle(path.name, path / "1", manifest, tensors, _read_cases(path))


def _read_tensors(path: Path, table: list[dict[str, Any]]) -> dict[str, Array]:
    content = path.read_bytes()
    return {one["name"]: _tensor(content, one) for one in table}


def _tensor(content: bytes, one: Mapping[str, Any]) -> Array:
    dtype = np.dtype("uint16" if one["dtype"] == "bfloat16" else one["dtype"])
    count = int(np.prod(one["shape"], dtype=np.int64))
    array: Array = np.frombuffer(content, dtype, count, one["offset"])
    return array.reshape(one["shape"])


def _read_cases(path: Path) -> dict[str, dict[str, Array]]:
    cases: dict[str, dict[str, Array]] = {}
    with np.load(path / "reference.npz") as stored:
        for key in stored.files:
            case, _, name = key.partition(".")
            cases.setdefault(case, {})[name] = stored[key]
    return cases
