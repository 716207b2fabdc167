"""Opens a bundle in this process: `load` gives the methods of the client's models, without HTTP."""

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
import orjson

from hsoftmax import bundle
from hsoftmax.inputs import (
    FlatTargets,
    Inputs,
    ListedTargets,
    Targets,
    are_listed,
    as_matrix,
    plain_targets,
)
from hsoftmax.latest_version import latest_version
from hsoftmax.models import QueryError
from hsoftmax.models.arrays import Array, Float32, Int64
from hsoftmax.models.seeded_noise import noise
from hsoftmax.results import LabelPage, ModelInfo, Samples, TopK, from_log, known_targets
from hsoftmax.runtime.choices import NativeChoice
from hsoftmax.runtime.devices import Device, DeviceChoice
from hsoftmax.runtime.encoder import LoadedEncoder, encode_texts, open_encoder
from hsoftmax.runtime.encoder import encode as encode_rows
from hsoftmax.runtime.row_encoder import RowEncoder
from hsoftmax.runtime.sessions import Session, choose_device, open_sessions, with_fallback
from hsoftmax.scoring import MAX_SEED, BundleInfo, GraphRequest, Task, graph_inputs, score_rows
from hsoftmax.scoring.formats.columns import Columns
from hsoftmax.scoring.formats.ndjson import RowDecoder, encode
from hsoftmax.scoring.formats.record_schema import RecordSchema
from hsoftmax.scoring.label_search import LabelSearch, page_of, search_steps
from hsoftmax.scoring.requirements import row_requirements
from hsoftmax.scoring.task import (
    TargetShape,
    check_task,
    k_of,
    needs_target,
    record_fields,
    searched_k,
)
from hsoftmax.scoring.threshold import count_above
from hsoftmax.stream_rows import (
    ROWS_AT_ONCE,
    Record,
    Row,
    expect_parameters,
    expect_task,
    row_lines,
)
from hsoftmax.validation import (
    checked_log_probs,
    expect_labels,
    hidden_states,
    target_numbers,
)


def load(
    path: str | Path,
    *,
    device: DeviceChoice = "auto",
    native: NativeChoice = "auto",
    threads: int = 1,
    check_hashes: bool = True,
) -> "LocalModel":
    """Opens the bundle `REPOSITORY/NAME`, in its highest version, or `REPOSITORY/NAME/VERSION`.

    The first call in a process decides about `threads`, the threads of one graph run.

    Raises:
        BundleError: a file, a hash or a graph is wrong.
        CallError: the bundle is a layer without a softmax.
        DeviceError: the device, or native kernels that are `on`, are not available.
    """
    opened = bundle.open_bundle(latest_version(Path(path)), check_hashes=check_hashes)
    info = BundleInfo.of(opened)

    def open_on(device: Device) -> tuple[dict[str, Session], LoadedEncoder | None]:
        return open_sessions(opened, device), open_encoder(opened, device)

    sessions, encoder = with_fallback(choose_device(device, threads, native), open_on)
    return LocalModel(opened.manifest, opened.path, info, sessions, encoder)


class LocalModel:
    """A model whose graphs run in this process. Threads may share it.

    Every method raises UserError if the model cannot answer the call.
    """

    def __init__(
        self,
        manifest: bundle.Manifest,
        path: Path,
        info: BundleInfo,
        sessions: Mapping[str, Session],
        encoder: LoadedEncoder | None = None,
    ) -> None:
        self._manifest = manifest
        self._path = path
        self._info = info if encoder is None else replace(info, encoder=RowEncoder(encoder))
        self._sessions = sessions
        self._encoder = encoder

    def describe(self) -> ModelInfo:
        """Returns the sizes, the family and the version of the model."""
        manifest = self._manifest
        return ModelInfo(
            name=self._info.name,
            version=self._path.name,
            digest=manifest.digest,
            family=manifest.family,
            hidden_size=manifest.hidden_size,
            num_targets=manifest.num_targets,
            num_clusters=manifest.num_clusters,
            precision=manifest.precision,
            has_labels=self._info.labels is not None,
            tasks=tuple(sorted(self._sessions)),
            inputs=self._info.input_kinds,
            label_prefix=self._info.label_prefix,
        )

    @overload
    def probabilities(
        self, inputs: Inputs, targets: FlatTargets, *, log: bool = False
    ) -> Array: ...
    @overload
    def probabilities(
        self, inputs: Inputs, targets: ListedTargets, *, log: bool = False
    ) -> list[Array]: ...
    def probabilities(
        self, inputs: Inputs, targets: Targets, *, log: bool = False
    ) -> Array | list[Array]:
        """Returns the probability of each target, which is an index or a label.

        One target a row gives [rows]; an array gives an array of its shape; lists of any lengths
        give a list of arrays.
        """
        hidden, listed = self._hidden(inputs), are_listed(targets)
        lists = plain_targets(targets) if listed else [[one] for one in plain_targets(targets)]
        if len(lists) != len(hidden):
            rows = len(hidden)
            raise QueryError(f"targets: expected {rows}, one for each row, got {len(lists)}")
        counts = [len(one) for one in lists]
        row = np.repeat(np.arange(len(hidden)), counts)
        values = from_log(self._log_prob(hidden, row, target_numbers(lists, self._info)), log)
        if isinstance(targets, np.ndarray):
            return values.reshape(targets.shape)
        return np.split(values, np.cumsum(counts)[:-1]) if listed else values

    def distribution(self, inputs: Inputs, *, log: bool = False) -> Array:
        """Returns the probability of every target, [rows, num_targets]."""
        hidden = self._hidden(inputs)
        (log_probs,) = self._run("log_probs", {"hidden": hidden})
        return from_log(checked_log_probs(log_probs, hidden, self._info), log)

    def top_k(
        self,
        inputs: Inputs,
        k: int | None = None,
        *,
        threshold: float | None = None,
        max_blocks: int = 0,
        log: bool = False,
    ) -> list[TopK]:
        """Returns the k likeliest targets of each row, by default 10 or all if there are fewer.

        `threshold` keeps only those with a probability above it. `max_blocks` bounds the search,
        which may then be inexact; 0 is no bound.
        """
        task = Task("top_k", k=k, max_blocks=max_blocks, threshold=threshold)
        check_task(task, "none", self._info)
        hidden = self._hidden(inputs)
        limits = {
            "k": np.array([searched_k(task, self._info)]),
            "max_blocks": np.array([max_blocks]),
        }
        log_prob, target, blocks, exact = self._run("top_k", {"hidden": hidden, **limits})
        log_prob = checked_log_probs(log_prob, hidden, self._info, absent=~exact[:, None])
        above, k = count_above(log_prob, threshold), k_of(task, self._info)
        return [
            TopK(
                targets=target[i, :n],
                labels=self._labels_of(target[i, :n]),
                probabilities=from_log(log_prob[i, :n], log),
                exact=bool(exact[i]),
                blocks=int(blocks[i]),
                truncated=threshold is not None and bool(above[i] > k),
            )
            for i, n in enumerate(np.minimum(above, k).tolist())
        ]

    def sample(
        self, inputs: Inputs, num_samples: int = 1, *, seed: int | None = None, log: bool = False
    ) -> Samples:
        """Returns targets drawn with replacement; a seed makes the draw repeatable."""
        seed = secrets.randbelow(MAX_SEED + 1) if seed is None else seed
        check_task(Task("sample", num_samples=num_samples, seed=seed), "none", self._info)
        hidden = self._hidden(inputs)
        per_sample = self._sessions["sample"].graph.noise_per_sample
        feeds = {"hidden": hidden, "noise": noise(seed, len(hidden), num_samples, per_sample)}
        target, log_prob = self._run("sample", feeds)
        return Samples(
            targets=target,
            labels=None if self._info.labels is None else tuple(map(self._text, target)),
            probabilities=from_log(checked_log_probs(log_prob, hidden, self._info), log),
            seed=seed,
        )

    def clusters(self, inputs: Inputs, *, log: bool = False) -> Array:
        """Returns the probability of each cluster, [rows, num_clusters]."""
        if "cluster_log_probs" not in self._sessions:
            raise QueryError(
                f"{self._info.name} has no clusters, as its family, {self._manifest.family}, has "
                "none: call top_k or distribution instead"
            )
        hidden = self._hidden(inputs)
        (log_probs,) = self._run("cluster_log_probs", {"hidden": hidden})
        return from_log(checked_log_probs(log_probs, hidden, self._info, absent=np.True_), log)

    def labels(
        self, *, search: str = "", prefix: str = "", start: int = 0, limit: int = 100
    ) -> LabelPage:
        """Returns a page of labels that contain one text and begin with another."""
        expect_labels(self._info)
        labels = self._info.all_labels
        for name, value, least in (("start", start, 0), ("limit", limit, 1)):
            if not isinstance(value, (int, np.integer)) or value < least:
                raise QueryError(f"{name}: expected an integer from {least}, got {value!r}")
        prefix = prefix.removeprefix(self._info.label_prefix)
        query = LabelSearch(search=search, prefix=prefix, start=start, limit=limit)
        page = page_of(list(search_steps(labels, query)), query)
        targets = tuple(map(self._info.target_or_none, page.targets))
        return LabelPage(targets, tuple(labels[t] for t in page.targets), page.next_start)

    def labels_of(self, targets: Iterable[int]) -> tuple[str, ...]:
        """Returns the label of each target."""
        labels = expect_labels(self._info)
        return tuple(
            labels[target] for target in target_numbers([list(targets)], self._info).tolist()
        )

    def targets_of(self, labels: Iterable[str]) -> Int64:
        """Returns the target of each label."""
        expect_labels(self._info)
        labels = list(labels)
        numbers = target_numbers([labels], self._info)
        return known_targets(map(self._info.target_or_none, numbers.tolist()), labels)

    def score(
        self,
        rows: Iterable[Row],
        task: str = "target_log_prob",
        *,
        rows_at_once: int = ROWS_AT_ONCE,
        **parameters: object,
    ) -> Iterator[Record]:
        """Yields the record of each row, in order; a wrong row has an error record in its place.

        A row has `input`, perhaps `id`, and `target` or `targets` if the task reads them. Rows of
        any number are read as their records are taken, `rows_at_once` in one graph run.
        `parameters` are those of the task, such as `k`.
        """
        expect_task(task)
        expect_parameters(parameters)
        spec = Task(task, **parameters)  # type: ignore[arg-type]  # check_task checks the values
        source, first_row, shape = iter(rows), 0, None
        while some := list(islice(source, rows_at_once)):
            shape = shape or _target_shape(some[0], spec)
            check_task(spec, shape, self._info)
            yield from self._score(some, spec, shape, first_row)
            first_row += len(some)

    def _score(
        self, rows: Sequence[Row], task: Task, shape: TargetShape, first_row: int
    ) -> list[Record]:
        requirements = row_requirements(task, shape == "none", self._info)
        decoder = RowDecoder(Columns(), self._info.takes_text, self._encoder is not None)
        batch = decoder.decode(row_lines(rows), first_row + 1, requirements)
        scored = score_rows(
            batch, task, shape, self._info, first_row=first_row, run_graph=self._run_graph
        )
        schema = RecordSchema(record_fields(task, shape, self._info), "string", 0)
        return [orjson.loads(line) for line in encode(scored, schema).splitlines()]

    def _hidden(self, inputs: Any) -> Float32:  # noqa: ANN401  `Inputs`, or texts
        """Returns the inputs as states, those of an encoder after it. Raises UserError."""
        encoder = self._encoder
        if encoder is not None and as_matrix(inputs) is None:
            if isinstance(inputs, Mapping):
                return encode_rows(encoder, inputs)
            if encoder.tokenizer is not None:
                return encode_texts(encoder, inputs)
        return hidden_states(inputs, self._info)

    def _run_graph(self, request: GraphRequest) -> list[Array]:
        return self._run(request.graph, graph_inputs(request, self._sessions[request.graph].graph))

    def _run(self, task: str, feeds: Mapping[str, Array]) -> list[Array]:
        if task not in self._sessions:
            tasks = ", ".join(sorted(self._sessions))
            raise QueryError(f"{self._info.name}: expected a model with {task}, got {tasks}")
        return self._sessions[task].run(feeds)

    def _log_prob(self, hidden: Float32, row: Int64, target: Int64) -> Float32:
        if not len(row):
            return np.empty(0, dtype=np.float32)
        feeds: dict[str, Array] = {"hidden": hidden, "row": row, "target": target}
        (log_prob,) = self._run("target_log_prob", feeds)
        return checked_log_probs(log_prob, hidden, self._info, row=row)

    def _labels_of(self, targets: Int64) -> tuple[str, ...] | None:
        return None if self._info.labels is None else self._text(targets)

    def _text(self, targets: Int64) -> tuple[str, ...]:
        return tuple(self._info.label_array[targets].tolist())


def _target_shape(row: Row, task: Task) -> TargetShape:
    """Returns how the rows name their targets, which the first row decides."""
    if "targets" in row:
        return "many"
    return "one" if "target" in row or needs_target(task) else "none"
