"""Exports a model as a bundle, which becomes visible only after it is verified.

The command `hsoftmax export`, the tests and the benchmarks call it.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version as package_version
from pathlib import Path

import onnx

from hsoftmax import bundle, featurizers, models
from hsoftmax.featurizers import Featurizer
from hsoftmax.models.arrays import Float32
from hsoftmax.models.hierarchical_softmax import InnerNodes
from hsoftmax.runtime.sessions import open_session

from .choices import AUTO
from .encoder import TOKENIZER, EncoderOptions, write_encoder, write_tokenizer
from .errors import ExportError, VerificationError
from .files.label_file import pad_labels, read_label_file
from .graphs import LoweredGraph, bind_weights, lower
from .graphs.cuda import cuda_graphs
from .sources import SourceModel, SourceOptions, detect_source, load
from .staging import Destination, parse_destination, stage_bundle
from .storage.featurizer_files import write_featurizer
from .storage.precision import expect_supported_precision
from .storage.tensors import stored_tensors
from .storage.weights_file import write_weights
from .verification.featurizer_check import check_featurizer
from .verification.precision_error import RowsFrom, accuracy_rows, expect_accuracy, measure_accuracy
from .verification.reference_check import failures, verify


@dataclass(frozen=True)
class Origin:
    """Provenance of the weights: their format, and the SHA-256 of each file by its name."""

    format: str
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PrecisionOptions:
    """Precision of the stored weights, and the limit on their error.

    Attributes:
        calibration: a `.npy` file of hidden rows for a second accuracy measurement
        max_error: the largest |Δ log p| that is accepted; None accepts any
    """

    precision: bundle.Precision = "fp32"
    calibration: Path | None = None
    max_error: float | None = None


def export_file(
    path: Path,
    bundle_path: Path,
    *,
    source: str,
    options: SourceOptions | None = None,
    labels: Path | None = None,
    label_padding: str | None = None,
    precision_options: PrecisionOptions = PrecisionOptions(),
    encoder: EncoderOptions | None = None,
    cuda: bool = False,
    on_note: Callable[[str], None] = lambda note: None,
) -> bundle.Bundle:
    """Read trained weights and write them as the bundle `REPOSITORY/NAME[/VERSION]`.

    Nothing is left behind if an error is raised. `on_note` gets a sentence about a model of which
    the bundle has less than the user may expect.

    Args:
        labels: file of the targets' labels, in place of those of the model
        label_padding: start of the labels of targets beyond those in the file
        cuda: add graphs for CUDA

    Raises:
        ExportError, models.ModelError, bundle.BundleError: with one sentence for the user.
    """
    destination = parse_destination(bundle_path)
    options = options or SourceOptions()
    source = detect_source(path, options).source if source == AUTO else source
    source_model = load(path, source, options)
    if source_model.no_text:
        on_note(f"without text: {source_model.no_text}")
    target_labels = _labels(source_model, labels, label_padding)
    model, inner_labels = _with_inner_nodes(source_model, labels, on_note)
    hashes = _source_hashes(path, *source_model.extra_files)
    if encoder is not None:
        hashes |= {file.name: bundle.sha256(file) for file in encoder.files}
    origin = Origin(source, hashes)
    return export_model(
        model,
        destination,
        labels=target_labels,
        inner_labels=inner_labels,
        origin=origin,
        precision_options=precision_options,
        featurizer=source_model.featurizer,
        encoder=encoder,
        cuda=cuda,
    )


def export_model(
    model: models.Model,
    destination: Destination,
    *,
    labels: Sequence[str] | None = None,
    inner_labels: Sequence[str] = (),
    origin: Origin = Origin("python"),
    precision_options: PrecisionOptions = PrecisionOptions(),
    featurizer: Featurizer | None = None,
    encoder: EncoderOptions | None = None,
    cuda: bool = False,
) -> bundle.Bundle:
    """Write, sync and verify a model as a bundle, or leave nothing behind.

    `inner_labels` are those of the inner nodes of a tree, if the model has such.
    """
    if labels is not None:
        bundle.expect_labels(labels, model.num_targets or 0)
    if featurizer is not None and encoder is not None:
        raise ExportError("encoder: expected a head without a featurizer, got both: add --no-text")
    expect_supported_precision(model, precision_options.precision)
    rows = accuracy_rows(model, precision_options.calibration)
    with stage_bundle(destination) as staging:
        if featurizer is not None:
            write_featurizer(staging, featurizer)
        described = None if encoder is None else _write_encoder(staging, encoder, model)
        manifest = _write_content(
            staging, model, labels, inner_labels, origin, precision_options.precision,
            encoder=described, cuda=cuda,
        )  # fmt: skip
        checks = verify(staging, manifest)
        if featurizer is not None:
            check_featurizer(bundle.Bundle(staging, manifest), featurizer)
        if failed := failures(checks):
            raise VerificationError(failed[0])
        accuracy = _measure_accuracy(staging, manifest, model, rows)
        expect_accuracy(accuracy, precision_options.max_error)
        sealed = manifest.model_copy(update={"verification": checks, "accuracy": accuracy}).sealed()
        (staging / bundle.MANIFEST).write_text(sealed.to_json())
    return bundle.open_bundle(destination.path, check_hashes=False)  # just written and hashed


def exporter_version() -> str:
    """Return the exporter's name and version for the manifest."""
    return f"hsoftmax {package_version('hsoftmax')}"


def _labels(
    source_model: SourceModel, file: Path | None, padding: str | None
) -> tuple[str, ...] | None:
    """Return the labels in the file, or those of the model if no file is given.

    The file of a tree may label all nodes, in the order of nodes.
    """
    if file is not None:
        labels = read_label_file(file)
        if source_model.target_nodes and len(labels) == source_model.num_nodes:
            return tuple(labels[node] for node in source_model.target_nodes)
        if source_model.target_nodes and padding is None:
            _expect_leaf_labels(source_model, len(labels))
        return pad_labels(labels, source_model.model.num_targets or 0, padding)
    if source_model.labels_error:
        raise ExportError(f"{source_model.labels_error}: name the targets with --labels FILE")
    return source_model.labels


def _with_inner_nodes(
    source_model: SourceModel, file: Path | None, on_note: Callable[[str], None]
) -> tuple[models.Model, tuple[str, ...]]:
    """Return the model with the inner nodes of its tree that a label names, and their labels.

    A label that several nodes have names none of the inner ones.
    """
    model, ends = source_model.model, source_model.inner_ends
    if file is None or ends is None:
        return model, ()
    labels = read_label_file(file)
    if len(labels) != source_model.num_nodes:
        return model, ()
    counts = Counter(labels)
    kept = [i for i, node in enumerate(source_model.inner_nodes) if counts[labels[node]] == 1]
    if repeated := len(source_model.inner_nodes) - len(kept):
        on_note(f"{repeated} inner nodes have no label, because other nodes have the same one")
    if not kept or not isinstance(model, models.HierarchicalSoftmax):
        return model, ()
    inner = InnerNodes(ends.rows[kept], ends.levels[kept])
    return replace(model, inner=inner), tuple(labels[source_model.inner_nodes[i]] for i in kept)


def _expect_leaf_labels(source_model: SourceModel, num_labels: int) -> None:
    """Raise ExportError unless there is a label for each leaf of a tree."""
    leaves, nodes = len(source_model.target_nodes), source_model.num_nodes
    if num_labels != leaves:
        raise ExportError(
            f"labels: expected {nodes} for all nodes of the tree, in their order, or {leaves} for "
            f"its leaves alone, got {num_labels}"
        )


def _source_hashes(path: Path, *extra_files: Path) -> dict[str, str]:
    """Return the SHA-256 of the file and the extra files, or of every file of a folder."""
    files = sorted(path.iterdir()) if path.is_dir() else [path, *extra_files]
    return {file.name: bundle.sha256(file) for file in files if file.is_file()}


def _write_content(
    staging: Path,
    model: models.Model,
    labels: Sequence[str] | None,
    inner_labels: Sequence[str],
    origin: Origin,
    precision: bundle.Precision,
    *,
    encoder: bundle.Encoder | None,
    cuda: bool,
) -> bundle.Manifest:
    tensors = stored_tensors(model, precision)
    table = write_weights(staging / bundle.WEIGHTS, tensors)
    graphs = {
        task: _write_graph(staging, task, lowered, table)
        for task, lowered in lower(model, tensors).items()
    }
    if cuda:
        graphs = _write_cuda_graphs(staging, model, graphs)
    has_featurizer = (staging / featurizers.DESCRIPTION).exists()
    escapes = bundle.label_escapes(labels or ()) or bundle.label_escapes(inner_labels)
    files = {bundle.LABELS: labels, bundle.INNER_LABELS: inner_labels or None}
    for name, content in files.items():
        if content is not None:
            text = bundle.format_labels(content, escapes)
            (staging / name).write_text(text, "utf-8", newline="\n")
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
        label_escapes=escapes,
        inner_labels=bundle.INNER_LABELS if inner_labels else None,
        encoder=encoder,
        tokenizer=TOKENIZER if (staging / TOKENIZER).exists() else None,
        featurizer=featurizers.DESCRIPTION if has_featurizer else None,
        files={file.name: _file_entry(file) for file in sorted(staging.iterdir())},
        source=bundle.Source(
            format=origin.format,
            files=dict(origin.files),
            exporter=exporter_version(),
        ),
        verification=(),
    )


def _write_encoder(staging: Path, options: EncoderOptions, model: models.Model) -> bundle.Encoder:
    encoder = write_encoder(staging, options, model.hidden_size)
    if options.tokenizer is not None:
        write_tokenizer(staging, options.tokenizer, encoder)
    return encoder


def _write_graph(
    staging: Path, task: str, lowered: LoweredGraph, table: Sequence[bundle.StoredTensor]
) -> bundle.Graph:
    name = f"{task}.onnx"
    graph = bind_weights(lowered.proto, lowered.views, {tensor.name: tensor for tensor in table})
    (staging / name).write_bytes(graph.SerializeToString(deterministic=True))
    onnx.checker.check_model(staging / name)
    return bundle.Graph(file=name, inputs=lowered.task.inputs, outputs=lowered.task.outputs)


def _write_cuda_graphs(
    staging: Path, model: models.Model, graphs: Mapping[str, bundle.Graph]
) -> dict[str, bundle.Graph]:
    """Write the graphs for CUDA, and return the tasks with their names."""
    lowered = cuda_graphs(model)
    for name, proto in lowered.files.items():
        (staging / name).write_bytes(proto.SerializeToString(deterministic=True))
        onnx.checker.check_model(staging / name)
    names = {task: {bundle.CUDA_LOWERING: name} for task, name in lowered.tasks.items()}
    return {
        task: graph.model_copy(update={"lowerings": names.get(task, {})})
        for task, graph in graphs.items()
    }


def _measure_accuracy(
    staging: Path,
    manifest: bundle.Manifest,
    model: models.Model,
    rows: Mapping[RowsFrom, Float32],
) -> tuple[bundle.Accuracy, ...]:
    """Measure the graphs over each set of rows; return () for a model without a softmax."""
    if isinstance(model, models.SparseBlockDot):
        return ()
    session = open_session(staging / manifest.tasks["log_probs"].file)

    def log_probs(hidden: Float32) -> Float32:
        result: Float32 = session.run(None, {"hidden": hidden})[0]
        return result

    return tuple(measure_accuracy(model, log_probs, rows[name], name) for name in rows)


def _file_entry(path: Path) -> bundle.File:
    return bundle.File(size=path.stat().st_size, sha256=bundle.sha256(path))
