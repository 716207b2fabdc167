"""One version of a bundle, opened, checked and warm."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hsoftmax import bundle
from hsoftmax.bundle import Bundle, Manifest
from hsoftmax.runtime.devices import Device
from hsoftmax.runtime.sessions import Session, open_sessions
from hsoftmax.scoring import BundleInfo
from hsoftmax.service.errors import UnknownTask


@dataclass(frozen=True)
class LoadedBundle:
    """One version of a bundle with its sessions and labels.

    Whoever holds one may go on asking it, whatever becomes of the repository; its memory returns
    once nobody does.
    """

    name: str
    version: str
    bundle: Bundle
    device: Device
    sessions: Mapping[str, Session]
    labels: tuple[str, ...] | None

    @cached_property
    def manifest(self) -> Manifest:
        return self.bundle.manifest

    @cached_property
    def hidden_size(self) -> int:
        return self.manifest.hidden_size or 0

    @cached_property
    def num_targets(self) -> int:
        return self.manifest.num_targets or 0

    @cached_property
    def path_work(self) -> int:
        """Multiply-adds of a pair: all clusters and one block of the usual size, or its nodes."""
        manifest = self.manifest
        if manifest.family == "HuffmanSoftmax":
            return int(manifest.attributes["depth"]) * self.hidden_size
        clusters = manifest.num_clusters or self.num_targets
        return (clusters + -(-self.num_targets // clusters)) * self.hidden_size

    @property
    def providers(self) -> list[str]:
        """The execution providers that its sessions really got."""
        got = (session.runtime.get_providers() for session in self.sessions.values())
        return list(dict.fromkeys(provider for providers in got for provider in providers))

    @cached_property
    def bundle_info(self) -> BundleInfo:
        """What must be known of it to read rows for it."""
        return BundleInfo(
            name=self.name,
            digest=self.manifest.digest,
            hidden_size=self.hidden_size,
            num_targets=self.num_targets,
            graphs=frozenset(self.sessions),
            labels=self.labels,
        )

    @property
    def target_of_label(self) -> Mapping[str, int]:
        return self.bundle_info.target_of_label

    def session(self, task: str) -> Session:
        """The task's session. Raises UnknownTask if the bundle does not have it."""
        try:
            return self.sessions[task]
        except KeyError:
            raise UnknownTask(
                f"{self.name} version {self.version} has no task {task}: "
                f"it has {', '.join(sorted(self.sessions)) or 'none'}"
            ) from None


def load_bundle(
    name: str, version: int, path: Path, *, device: Device, check_hashes: bool
) -> LoadedBundle:
    """Everything a version needs to answer its first request as fast as its second.

    Raises:
        BundleError: a file, a hash, a label or a graph that does not fit.
    """
    opened = bundle.open_bundle(path)
    with _checked(opened) if check_hashes else nullcontext():
        labels = bundle.read_labels(opened)
        served = LoadedBundle(
            name, str(version), opened, device, open_sessions(opened, device), labels
        )
        _ = served.target_of_label  # else the first request with a label would wait for it
    return served


@contextmanager
def _checked(opened: Bundle) -> Iterator[None]:
    """What is done meanwhile ends well only if every file's hash is right.

    Graphs and labels are compared first, as nothing is to be read that is not what was exported;
    the weights, which take most of the time, while the graphs are loaded and run once.
    """
    files = set(opened.manifest.files)
    bundle.check_hashes(opened, sorted(files - {bundle.WEIGHTS}))
    with ThreadPoolExecutor(1) as pool:
        weights = pool.submit(bundle.check_hashes, opened, files & {bundle.WEIGHTS})
        yield
        weights.result()
