"""`bundle.json`: what a bundle holds, typed, and impossible to build wrong.

The digest names the whole bundle: it is the SHA-256 of the manifest itself (which holds every
file's hash) in canonical JSON. There are no times in it, so the same export gives the same digest.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from hsoftmax.models.choices import Precision

SCHEMA_VERSION = 1
ALIGNMENT = 4096
MANIFEST = "bundle.json"
WEIGHTS = "weights.bin"
LABELS = "labels.txt"


def _plain_name(name: str) -> str:
    if not name or name in {".", ".."} or "\\" in name or PurePosixPath(name).name != name:
        raise ValueError(f"expected a file name inside the bundle, got {name!r}")
    return name


FileName = Annotated[str, AfterValidator(_plain_name)]
Size = Annotated[int, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Dtype = Literal["float32", "float16", "int8", "int32", "int64", "bool"]


class Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Tensor(Entry):
    """One array in `weights.bin`: little-endian, C order, at an aligned offset."""

    name: str
    dtype: Dtype
    shape: tuple[Size, ...]
    offset: Annotated[int, Field(ge=0, multiple_of=ALIGNMENT)]

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


class Port(Entry):
    """One input or output of a graph; a free dimension is named, as in `[batch, 256]`."""

    name: str
    dtype: Dtype
    shape: tuple[int | str, ...]


class Graph(Entry):
    """One task's ONNX file and what goes in and out of it."""

    file: FileName
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    @property
    def noise_per_sample(self) -> int:
        """L of the input `noise` [batch, samples, L]: the numbers that one draw takes, or 0."""
        return next((int(port.shape[-1]) for port in self.inputs if port.name == "noise"), 0)


class File(Entry):
    size: Size
    sha256: Sha256


class Source(Entry):
    """Where the weights came from."""

    format: str
    files: dict[str, Sha256]
    exporter: str


class Check(Entry):
    """One task compared with the float64 reference."""

    task: str
    case: str
    values: Size
    max_error: float
    tolerance: float
    passed: bool


class Accuracy(Entry):
    """Answers compared with the trained weights in float64, over some rows.

    Attributes:
        rows_from: "drawn" by the exporter, or the "calibration" file that it was given
        max_error, mean_error: of |Δ log p| over all rows and targets
        kl: mean over rows, in nats
        top1_agreement, top10_agreement: the part of the likeliest targets that both name
    """

    rows_from: Literal["drawn", "calibration"]
    rows: Size
    max_error: float
    mean_error: float
    kl: float
    top1_agreement: float
    top10_agreement: float


class Manifest(Entry):
    """The whole of `bundle.json`."""

    schema_version: Literal[1] = 1
    family: str
    hidden_size: Size | None
    num_targets: Size | None
    num_clusters: Size | None
    precision: Precision
    attributes: dict[str, Any]
    tasks: dict[str, Graph]
    tensors: tuple[Tensor, ...]
    labels: FileName | None
    files: dict[FileName, File]
    source: Source
    verification: tuple[Check, ...]
    accuracy: tuple[Accuracy, ...] = ()
    digest: Annotated[str, Field(pattern=r"^([0-9a-f]{64}|)$")] = ""

    @property
    def padding(self) -> str | None:
        return self.attributes.get("padding")

    def sealed(self) -> Self:
        """The same manifest with its digest filled in."""
        content = self.model_dump(mode="json", exclude={"digest"})
        return self.model_copy(update={"digest": _digest(content)})

    def to_json(self) -> str:
        return json.dumps(self.model_dump(mode="json"), indent=1) + "\n"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for task, graph in self.tasks.items():
            if graph.file not in self.files:
                raise ValueError(f"task {task}: {graph.file} is not in the list of files")
        if self.labels is not None and self.labels not in self.files:
            raise ValueError(f"labels: {self.labels} is not in the list of files")
        room = self.files[WEIGHTS].size if WEIGHTS in self.files else 0
        for tensor in self.tensors:
            if tensor.offset + tensor.num_bytes > room:
                raise ValueError(
                    f"tensor {tensor.name}: expected to end within the {room} bytes of {WEIGHTS}, "
                    f"got {tensor.offset + tensor.num_bytes}"
                )
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _is_as_sealed(cls, content: Any, read: Callable[[Any], Self]) -> Self:  # noqa: ANN401
        """The digest is of what is written: fields that came later are not in older bundles."""
        made = read(content)
        if made.digest and isinstance(content, dict):
            wanted = _digest({name: part for name, part in content.items() if name != "digest"})
            if made.digest != wanted:
                raise ValueError(f"digest: expected {wanted}, got {made.digest}")
        return made


def _digest(content: Mapping[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
