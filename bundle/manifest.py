"""`bundle.json`: what a bundle holds, typed, and impossible to build wrong.

The digest names the whole bundle: it is the SHA-256 of the manifest itself (which holds every
file's hash) in canonical JSON. There are no times in it, so the same export gives the same digest.

Schema 2 adds optional parts to schema 1: graphs for one device, an encoder, a featurizer, a
tokenizer, bf16, labels with escapes, labels of inner nodes. A manifest has schema 1 unless it uses
one of them, and absent ones are not written, so that the digest of a bundle without them does not
depend on the schemas that there are.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from hsoftmax.models.choices import Precision

SCHEMA_VERSIONS = (1, 2)  # that this reader knows
ALIGNMENT = 4096
MANIFEST = "bundle.json"
WEIGHTS = "weights.bin"
LABELS = "labels.txt"
INNER_LABELS = "inner_labels.txt"
CUDA_LOWERING = "cuda"  # the device of graphs for CUDA in `lowerings`
_MAX_NUMBERS = 2**59  # of a tensor; NumPy has no larger shape of eight-byte numbers
LabelEscapes = Literal["backslash"]  # how `labels.txt` writes what a line cannot hold


def _plain_name(name: str) -> str:
    if not name or name in {".", ".."} or "\\" in name or PurePosixPath(name).name != name:
        raise ValueError(f"expected a file name inside the bundle, got {name!r}")
    return name


FileName = Annotated[str, AfterValidator(_plain_name)]
Size = Annotated[int, Field(ge=0, le=2**63 - 1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Dtype = Literal["float32", "float16", "int8", "int32", "int64", "bool"]
TensorDtype = Literal[Dtype, "bfloat16"]
Device = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*$")]  # such as "cuda"


class Entry(BaseModel):
    """A part of the manifest.

    Attributes:
        added: fields of a later schema, which are not written where they are empty
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    added: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_absent(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = write(self)
        return {name: part for name, part in fields.items() if part or name not in self.added}


class StoredTensor(Entry):
    """One array in `weights.bin`: little-endian, C order, at an aligned offset."""

    name: str
    dtype: TensorDtype
    shape: Annotated[tuple[Size, ...], Field(max_length=32)]
    offset: Annotated[int, Field(ge=0, multiple_of=ALIGNMENT)]

    @property
    def stored_dtype(self) -> np.dtype[Any]:
        """The dtype of its bytes in NumPy, which has no bfloat16: its bits are uint16."""
        return np.dtype("uint16" if self.dtype == "bfloat16" else self.dtype)

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.stored_dtype.itemsize


class Port(Entry):
    """One input or output of a graph; a free dimension is named, as in `[batch, 256]`."""

    name: str
    dtype: Dtype
    shape: Annotated[tuple[int | str, ...], Field(max_length=32)]


class Graph(Entry):
    """One task's ONNX file and what goes in and out of it.

    Attributes:
        lowerings: by device, a graph that the runtime of that device runs for the task, as often as
            it plans; it may share others of `files`. `file` runs on every device
    """

    added = frozenset({"lowerings"})

    file: FileName
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    lowerings: dict[Device, FileName] = Field(default_factory=dict)

    @property
    def noise_per_sample(self) -> int:
        """L of the input `noise` [batch, samples, L]: the numbers that one draw takes, or 0."""
        return next((int(port.shape[-1]) for port in self.inputs if port.name == "noise"), 0)


class Encoder(Entry):
    """The graph in front of the head, which turns rows of ids or numbers into `hidden`.

    The first dimension of its inputs and of its output is `batch`. A row of an input whose second
    dimension has a name is a sequence of any length.

    Attributes:
        weights: the external data of `file`, None where `file` itself contains the weights
        outputs: the one output, which is `hidden`
        position: the position of a sequence whose state is `hidden`, where the output has them
        mask: the input that is 1 at each position of a row and 0 at its padding, if there is one
        lengths: the input that has the number of positions of each row, if there is one
        num_ids: by input, the number of ids that its table has; other integers are not bounded
        multiply_adds: estimated work for one position
    """

    added = frozenset({"mask", "lengths", "num_ids", "multiply_adds"})

    file: FileName
    weights: FileName | None
    inputs: tuple[Port, ...]
    outputs: Annotated[tuple[Port, ...], Field(min_length=1, max_length=1)]
    position: Literal["first", "last", "each"] | None
    mask: str | None = None
    lengths: str | None = None
    num_ids: dict[str, Annotated[Size, Field(ge=1)]] = Field(default_factory=dict)
    multiply_adds: Size = 0

    @property
    def is_padded(self) -> bool:
        """True if rows of different lengths can run together, padded on the right."""
        return self.mask is not None or self.lengths is not None

    @property
    def row_inputs(self) -> tuple[Port, ...]:
        """The inputs that a query gives: all but mask and lengths, which follow from its rows."""
        made = {self.mask, self.lengths}
        return tuple(port for port in self.inputs if port.name not in made)

    @model_validator(mode="after")
    def _fits_its_ports(self) -> Self:
        names = {port.name for port in self.inputs}
        for name in (self.mask, self.lengths, *self.num_ids):
            if name is not None and name not in names:
                raise ValueError(f"expected an input {name}, got {sorted(names)}")
        if not self.row_inputs:
            raise ValueError("expected an input of rows, got none")
        for port in (*self.inputs, *self.outputs):
            if not port.shape or not isinstance(port.shape[0], str):
                raise ValueError(f"{port.name}: expected a free first dimension, got {port.shape}")
        axes = len(self.outputs[0].shape)
        if axes != (2 if self.position is None else 3):
            raise ValueError(f"position: expected null for 2 axes and one for 3, got {axes} axes")
        return self


class File(Entry):
    size: Size
    sha256: Sha256


class Source(Entry):
    """The files of the weights, their format, and the exporter that read them."""

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
    """The whole of `bundle.json`.

    Attributes:
        label_escapes: escapes in the files of labels; None where each line is the label itself
        inner_labels: file of the labels of inner nodes, which are asked for by label alone
        featurizer, tokenizer: files that say how text becomes an input of the encoder or the head
        schema_version: the lowest that has all of the parts, unless another one is given
    """

    added = frozenset({"encoder", "featurizer", "inner_labels", "label_escapes", "tokenizer"})

    family: str
    hidden_size: Size | None
    num_targets: Size | None
    num_clusters: Size | None
    precision: Precision
    attributes: dict[str, Any]
    tasks: dict[str, Graph]
    tensors: tuple[StoredTensor, ...]
    labels: FileName | None
    files: dict[FileName, File]
    source: Source
    verification: tuple[Check, ...]
    accuracy: tuple[Accuracy, ...] = ()
    encoder: Encoder | None = None
    featurizer: FileName | None = None
    tokenizer: FileName | None = None
    label_escapes: LabelEscapes | None = None
    inner_labels: FileName | None = None
    schema_version: Literal[1, 2] = Field(default_factory=lambda parts: _lowest_schema(parts))
    digest: Annotated[str, Field(pattern=r"^([0-9a-f]{64}|)$")] = ""

    @property
    def padding(self) -> str | None:
        return self.attributes.get("padding")

    def sealed(self) -> Self:
        """Return the manifest with its digest filled in."""
        content = self.model_dump(mode="json", exclude={"digest"})
        return self.model_copy(update={"digest": _digest(content)})

    def to_json(self) -> str:
        content = {"schema_version": self.schema_version} | self.model_dump(mode="json")
        return json.dumps(content, indent=1) + "\n"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.schema_version == 1 and (part := _part_of_schema_2(dict(self))):
            raise ValueError(f"schema_version: expected 2, which has {part}, got 1")
        for name, file in self._named_files():
            if file is not None and file not in self.files:
                raise ValueError(f"{name}: {file} is not in the list of files")
        room = self.files[WEIGHTS].size if WEIGHTS in self.files else 0
        for tensor in self.tensors:
            if math.prod(size or 1 for size in tensor.shape) > _MAX_NUMBERS:
                raise ValueError(
                    f"tensor {tensor.name}: expected at most {_MAX_NUMBERS} numbers, got more"
                )
            if tensor.offset + tensor.num_bytes > room:
                raise ValueError(
                    f"tensor {tensor.name}: expected to end within the {room} bytes of {WEIGHTS}, "
                    f"got {tensor.offset + tensor.num_bytes}"
                )
        return self

    def _named_files(self) -> Iterator[tuple[str, str | None]]:
        """Each file that a part names, None where there is none, after the part's name."""
        for task, graph in self.tasks.items():
            yield f"task {task}", graph.file
            for device, file in graph.lowerings.items():
                yield f"task {task} on {device}", file
        yield from (("labels", self.labels), ("inner_labels", self.inner_labels))
        if self.encoder is not None:
            yield from (("encoder", self.encoder.file), ("encoder", self.encoder.weights))
        yield from (("featurizer", self.featurizer), ("tokenizer", self.tokenizer))

    @model_validator(mode="wrap")
    @classmethod
    def _is_as_sealed(cls, content: Any, read: Callable[[Any], Self]) -> Self:  # noqa: ANN401
        """The digest is of what is written: fields that came later are not in older bundles."""
        if isinstance(content, dict):
            _expect_known_schema(content.get("schema_version", 1))
        made = read(content)
        if made.digest and isinstance(content, dict):
            wanted = _digest({name: part for name, part in content.items() if name != "digest"})
            if made.digest != wanted:
                raise ValueError(f"digest: expected {wanted}, got {made.digest}")
        return made


def _expect_known_schema(version: object) -> None:
    """Raise ValueError for an unknown schema version, before any other field is checked."""
    if version not in SCHEMA_VERSIONS:
        newer = isinstance(version, int) and version > max(SCHEMA_VERSIONS)
        raise ValueError(
            f"schema_version: expected {' or '.join(map(str, SCHEMA_VERSIONS))}, "
            f"got {str(version)[:40]}{': a newer hsoftmax wrote this bundle' if newer else ''}"
        )


def _lowest_schema(parts: Mapping[str, Any]) -> Literal[1, 2]:
    return 1 if _part_of_schema_2(parts) is None else 2


def _part_of_schema_2(parts: Mapping[str, Any]) -> str | None:
    """The first part that schema 1 does not have; `parts` lacks those that are not valid."""
    for name in ("encoder", "featurizer", "tokenizer", "label_escapes", "inner_labels"):
        if parts.get(name) is not None:
            return name
    for task, graph in parts.get("tasks", {}).items():
        if graph.lowerings:
            return f"lowerings, as task {task} has"
    for tensor in parts.get("tensors", ()):
        if tensor.dtype == "bfloat16":
            return f"bfloat16, as tensor {tensor.name} is"
    precision, family = parts.get("precision"), parts.get("family")
    if precision == "bf16":
        return "precision bf16"
    if precision in ("fp16", "int8") and family != "HierarchicalSoftmax":
        return f"precision {precision} of {family}"
    return None


def _digest(content: Mapping[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
