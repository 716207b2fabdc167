"""One version of a bundle in memory: opened, checked and warmed up."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from hsoftmax import bundle
from hsoftmax.bundle import Bundle, Manifest
from hsoftmax.featurizers import FEATURES, Featurizer, featurize, open_featurizer
from hsoftmax.models.probability import max_log_prob
from hsoftmax.runtime.devices import Device
from hsoftmax.runtime.encoder import LoadedEncoder, open_encoder
from hsoftmax.runtime.hierarchy import (
    Hierarchy,
    LevelHierarchy,
    children_session,
    open_hierarchy,
)
from hsoftmax.runtime.row_encoder import RowEncoder
from hsoftmax.runtime.sessions import Session, open_sessions, with_fallback
from hsoftmax.scoring import BundleInfo
from hsoftmax.service.errors import UnknownTask

_OPERATIONS = {  # of tasks that have another name than the operation that asks them
    "cluster_log_probs": "clusters",
    "log_probs": "probabilities",
    "target_log_prob": "probabilities",
}


@dataclass(frozen=True)
class LoadedBundle:
    """One version of a bundle with its sessions and labels.

    Stays usable after it is unloaded; its memory is freed when the last reference is dropped.

    Attributes:
        created: Unix seconds of the last change of the manifest
        featurizer: turns text into `hidden`; None if the bundle has none
        encoder: turns inputs by name, and text if it has a tokenizer, into `hidden`; or None
        inner_labels: the labels of inner nodes, which are asked for by label alone
    """

    name: str
    version: str
    bundle: Bundle
    device: Device
    sessions: Mapping[str, Session]
    labels: tuple[str, ...] | None
    created: int = 0
    featurizer: Featurizer | None = None
    encoder: LoadedEncoder | None = None
    inner_labels: tuple[str, ...] = ()

    @cached_property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self.bundle.manifest

    @cached_property
    def hidden_size(self) -> int:
        """Numbers in an input row; 0 for a bundle without hidden states."""
        return self.manifest.hidden_size or 0

    @cached_property
    def num_targets(self) -> int:
        """Number of targets; 0 for a bundle without targets."""
        return self.manifest.num_targets or 0

    @cached_property
    def max_log_prob(self) -> float:
        """The largest log-probability of a response: 0, or infinity for scores beyond one."""
        return max_log_prob(self.manifest.attributes)

    @property
    def providers(self) -> list[str]:
        """The execution providers that ONNX Runtime gave to the sessions."""
        got = (session.runtime.get_providers() for session in self._all_sessions)
        return list(dict.fromkeys(provider for providers in got for provider in providers))

    @property
    def _all_sessions(self) -> tuple[Session, ...]:
        encoder = () if self.encoder is None else (self.encoder.session,)
        return (*self.sessions.values(), *encoder)

    @property
    def devices(self) -> dict[str, str]:
        """The device that computes each task: cpu or cuda."""
        return {task: session.device for task, session in sorted(self.sessions.items())}

    @property
    def native_tasks(self) -> list[str]:
        """The tasks that native kernels compute."""
        return sorted(task for task, session in self.sessions.items() if session.kernel)

    @cached_property
    def bundle_info(self) -> BundleInfo:
        """The facts that the scoring core needs to read rows for this bundle."""
        return BundleInfo(
            name=self.name,
            digest=self.manifest.digest,
            hidden_size=self.hidden_size,
            num_targets=self.num_targets,
            graphs=frozenset(self.sessions),
            labels=self.labels,
            max_log_prob=self.max_log_prob,
            native=frozenset(self.native_tasks),
            featurizer=self.featurizer,
            encoder=None if self.encoder is None else RowEncoder(self.encoder),
            label_prefix=bundle.label_prefix(self.manifest),
            inner_labels=self.inner_labels,
        )

    @cached_property
    def hierarchy(self) -> Hierarchy:
        """The nodes between the whole tree and the targets. Raises UnknownTask without targets."""
        opened = open_hierarchy(self.bundle)
        if opened is None:
            raise UnknownTask(self._lacks("children"))
        return opened

    @cached_property
    def children_session(self) -> Session:
        """The session that computes the children of a node. Raises UnknownTask without targets."""
        return children_session(self.hierarchy, self.session("target_log_prob"), self.hidden_size)

    @cached_property
    def inner_nodes(self) -> tuple[int | None, ...]:
        """The number of the node of each label in `inner_labels`; None for the whole tree."""
        hierarchy = self.hierarchy
        return hierarchy.inner_nodes if isinstance(hierarchy, LevelHierarchy) else ()

    @cached_property
    def node_labels(self) -> Mapping[int | None, tuple[str, ...]]:
        """The labels of each node, the upper one first where a node is an only child."""
        labels: dict[int | None, tuple[str, ...]] = {}
        for node, label in zip(self.inner_nodes, self.inner_labels, strict=False):
            labels[node] = (*labels.get(node, ()), label)
        return labels

    @property
    def inputs(self) -> tuple[str, ...]:
        """The kinds of a row of `inputs`; none for a bundle without hidden states."""
        return self.bundle_info.input_kinds if self.hidden_size else ()

    @property
    def takes_text(self) -> bool:
        """True if a featurizer or a tokenizer reads text."""
        has_tokenizer = self.encoder is not None and self.encoder.tokenizer is not None
        return self.featurizer is not None or has_tokenizer

    @property
    def is_intact(self) -> bool:
        """False once the mapped weights were changed in place: no answer is right any more."""
        features = None if self.featurizer is None else self.featurizer.guard
        guards = [features, *(session.weights for session in self._all_sessions)]
        return all(guard is None or guard.unchanged for guard in guards)

    def session(self, task: str) -> Session:
        """The task's session. Raises UnknownTask if the bundle does not have it."""
        try:
            return self.sessions[task]
        except KeyError:
            raise UnknownTask(self._lacks(task)) from None

    def _lacks(self, task: str) -> str:
        """The sentence about a task that the bundle does not have, with those to ask instead."""
        name, family = f"{self.name} version {self.version}", self.manifest.family
        lack = f"no task {task}"
        if task == "cluster_log_probs":
            lack = f"no clusters, as its family, {family}, has none"
        operations = sorted({_OPERATIONS.get(one, one) for one in self.sessions})
        return f"{name} has {lack}" + (f": ask {' or '.join(operations)}" if operations else "")


def load_bundle(
    name: str, version: int, path: Path, *, device: Device, check_hashes: bool
) -> LoadedBundle:
    """Load a version, check it and warm it up, so that its first request is as fast as its second.

    A bundle that does not fit the device is opened on its fallback, if it has one.

    Raises:
        BundleError: a file, a hash, a label or a graph is wrong, or memory does not suffice.
    """
    opened = bundle.open_bundle(path, check_hashes=False)
    with _checking_hashes(opened) if check_hashes else nullcontext():
        labels = bundle.read_labels(opened)
        used, sessions, encoder = with_fallback(device, partial(_open_on, opened))
        created = (path / bundle.MANIFEST).stat().st_mtime
        featurizer = open_featurizer(opened)
        loaded = LoadedBundle(
            name,
            str(version),
            opened,
            used,
            sessions,
            labels,
            int(created),
            featurizer,
            encoder,
            bundle.read_inner_labels(opened, labels or ()),
        )
        _ = loaded.bundle_info.target_of_label  # else the first request with a label waits for it
        if featurizer is not None:
            featurize(featurizer, [""])  # and the first one with a text for its kernel
    return loaded


def _open_on(
    opened: Bundle, device: Device
) -> tuple[Device, dict[str, Session], LoadedEncoder | None]:
    return device, open_sessions(opened, device), open_encoder(opened, device)


@contextmanager
def _checking_hashes(opened: Bundle) -> Iterator[None]:
    """Check every file's hash while the body of the `with` runs; raise BundleError at its end.

    Graphs and labels are checked before the body, because nothing may be parsed that was not
    exported. The weights, those of the encoder and the features take most of the time, so a thread
    checks them while the body loads and runs the graphs.
    """
    encoder = opened.manifest.encoder
    files = set(opened.manifest.files)
    large = {bundle.WEIGHTS, FEATURES, None if encoder is None else encoder.weights}
    bundle.check_hashes(opened, sorted(files - large))
    with ThreadPoolExecutor(1) as pool:
        weights = pool.submit(bundle.check_hashes, opened, sorted(files & large))
        yield
        weights.result()
