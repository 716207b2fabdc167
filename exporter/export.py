"""Export: a model becomes a bundle, verified before anyone can see it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version as package_version
from pathlib import Path

import onnx

from hsoftmax import bundle, models
from hsoftmax.models.arrays import Float32
from hsoftmax.runtime.sessions import open_session

from .choices import AUTO
from .errors import ExportError, VerificationError
from .graphs import Lowered, bind, lower
from .sources import Options, load, recognise
from .staging import Destination, destination, staged
from .storage.precision import expect_offered
from .storage.tensors import stored_tensors
from .storage.weights_file import write_weights
from .verification.accuracy import RowsFrom, accuracy_rows, expect_accuracy, measure_accuracy
from .verification.graph_checks import failures, verify


@dataclass(frozen=True)
class Origin:
    """Where weights came from: their format, and the SHA-256 of each file by its name."""

    format: str
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Fidelity:
    """How weights are stored, and how near the answers must stay to the trained ones.

    Attributes:
        calibration: a `.npy` file of hidden rows to measure with, besides those drawn
        max_error: the largest |Δ log p| that is let through
    """

    precision: bundle.Precision = "fp32"
    calibration: Path | None = None
    max_error: float | None = None


def export_file(
    path: Path,
    to: Path,
    *,
    source: str,
    options: Options | None = None,
    labels: Path | None = None,
    fidelity: Fidelity = Fidelity(),
) -> bundle.Bundle:
    """Read trained weights and write them as the bundle `REPOSITORY/NAME[/VERSION]`.

    Raises:
        ExportError, models.ModelError, bundle.BundleError: one sentence; nothing is left behind.
    """
    target = destination(to)
    source = recognise(path).source if source == AUTO else source
    loaded = load(path, source, options or Options())
    given = loaded.labels if labels is None else read_label_file(labels)
    origin = Origin(source, _hashes(path, *loaded.beside))
    return export_model(loaded.model, target, labels=given, origin=origin, fidelity=fidelity)


def export_model(
    model: models.Model,
    to: Destination,
    *,
    labels: Sequence[str] | None = None,
    origin: Origin = Origin("python"),
    fidelity: Fidelity = Fidelity(),
) -> bundle.Bundle:
    """Write a model as a bundle that is complete, on disk and verified, or not there at all."""
    if labels is not None:
        bundle.expect_labels(labels, model.num_targets or 0)
    expect_offered(model, fidelity.precision)
    rows = accuracy_rows(model, fidelity.calibration)
    with staged(to) as staging:
        manifest = _write_content(staging, model, labels, origin, fidelity.precision)
        checks = verify(staging, manifest)
        if wrong := failures(checks):
            raise VerificationError(wrong[0])
        accuracy = _accuracy(staging, manifest, model, rows)
        expect_accuracy(accuracy, fidelity.max_error)
        sealed = manifest.model_copy(update={"verification": checks, "accuracy": accuracy}).sealed()
        (staging / bundle.MANIFEST).write_text(sealed.to_json())
    return bundle.open_bundle(to.path)


def signature() -> str:
    """What a manifest names as the exporter of its bundle."""
    return f"hsoftmax {package_version('hsoftmax')}"


def read_label_file(path: Path) -> tuple[str, ...]:
    """The labels in a UTF-8 file, one a line."""
    try:
        return bundle.parse_labels(path.read_bytes())
    except OSError as error:
        raise ExportError(f"{path}: expected a file of labels, got {error.strerror}") from None


def _hashes(path: Path, *beside: Path) -> dict[str, str]:
    """Of the file and those beside it, or of every file of a folder."""
    files = sorted(path.iterdir()) if path.is_dir() else [path, *beside]
    return {file.name: bundle.sha256(file) for file in files if file.is_file()}


def _write_content(
    staging: Path,
    model: models.Model,
    labels: Sequence[str] | None,
    origin: Origin,
    precision: bundle.Precision,
) -> bundle.Manifest:
    tensors = stored_tensors(model, precision)
    table = write_weights(staging / bundle.WEIGHTS, tensors)
    graphs = {
        task: _write_graph(staging, task, lowered, table)
        for task, lowered in lower(model, tensors).items()
    }
    if labels is not None:
        (staging / bundle.LABELS).write_text("".join(f"{label}\n" for label in labels), "utf-8")
    return bundle.Manifest(
        family=models.family(model),
        hidden_size=model.hidden_size,
        num_targets=model.num_targets,
        num_clusters=model.num_clusters,
        precision=precision,
        attributes=models.attributes(model),
        tasks=graphs,
        tensors=table,
        labels=None if labels is None else bundle.LABELS,
        files={file.name: _file(file) for file in sorted(staging.iterdir())},
        source=bundle.Source(
            format=origin.format,
            files=dict(origin.files),
            exporter=signature(),
        ),
        verification=(),
    )


def _write_graph(
    staging: Path, task: str, lowered: Lowered, table: Sequence[bundle.Tensor]
) -> bundle.Graph:
    name = f"{task}.onnx"
    bound = bind(lowered.proto, lowered.views, {tensor.name: tensor for tensor in table})
    (staging / name).write_bytes(bound.SerializeToString(deterministic=True))
    onnx.checker.check_model(staging / name)
    return bundle.Graph(file=name, inputs=lowered.task.inputs, outputs=lowered.task.outputs)


def _accuracy(
    staging: Path,
    manifest: bundle.Manifest,
    model: models.Model,
    rows: Mapping[RowsFrom, Float32],
) -> tuple[bundle.Accuracy, ...]:
    """Of the bundle's graphs over each set of rows; none of a layer that is no softmax."""
    if isinstance(model, models.SparseBlockDot):
        return ()
    session = open_session(staging / manifest.tasks["log_probs"].file)

    def log_probs(hidden: Float32) -> Float32:
        answer: Float32 = session.run(None, {"hidden": hidden})[0]
        return answer

    return tuple(measure_accuracy(model, log_probs, rows[name], name) for name in rows)


def _file(path: Path) -> bundle.File:
    return bundle.File(size=path.stat().st_size, sha256=bundle.sha256(path))
