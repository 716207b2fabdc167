"""The sample that `hsoftmax demo` serves: a language model over the presidential addresses."""

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from hsoftmax import bundle, exporter
from hsoftmax.models.arrays import Float32, Int64

SAMPLE_NAME = "state_of_the_union"
_FOLDER = Path(__file__).parents[1] / "sample_files"


@dataclass(frozen=True)
class Sample:
    """The files of the trained model, and held-out positions for queries."""

    folder: Path

    @cached_property
    def heldout(self) -> tuple[Float32, Int64]:
        """Hidden states [M, H], and the word that came next in the text, [M]."""
        with np.load(self.folder / "heldout.npz", allow_pickle=False) as arrays:
            return arrays["hidden"], arrays["target"]

    @cached_property
    def contexts(self) -> list[str]:
        """The words before each held-out position."""
        lines = (self.folder / "heldout.jsonl").read_text("utf-8").splitlines()
        return [json.loads(line)["context"] for line in lines]

    @cached_property
    def perplexity(self) -> float:
        """The perplexity of the held-out positions, as the trainer computed it."""
        return float(json.loads((self.folder / "training.json").read_text())["heldout_perplexity"])


def find_sample() -> Sample:
    """Returns the sample. Raises SourceError if this installation has none."""
    if (_FOLDER / "weights.npz").is_file():
        return Sample(_FOLDER)
    raise exporter.SourceError("sample: expected its weights.npz in the installation, got none")


def default_repository() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "hsoftmax" / "demo"


def export_sample(sample: Sample, repository: Path) -> bundle.Bundle:
    """Returns the sample's bundle, and exports it if its weights or the exporter have changed."""
    weights = sample.folder / "weights.npz"
    expected = bundle.Source(
        format="theano",
        files={weights.name: bundle.sha256(weights)},
        exporter=exporter.exporter_version(),
    )
    versions = bundle.versions(repository / SAMPLE_NAME)
    if versions:
        with suppress(bundle.BundleError):  # a broken bundle is exported again
            opened = bundle.open_bundle(repository / SAMPLE_NAME / str(versions[-1]))
            if opened.manifest.source == expected:
                return opened
    return exporter.export_file(
        weights,
        repository / SAMPLE_NAME / str(max(versions, default=0) + 1),
        source="theano",
        labels=sample.folder / "labels.txt",
    )
