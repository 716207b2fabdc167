"""The sample that `hsoftmax demo` serves: a language model of the presidential addresses."""

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hsoftmax import bundle, exporter

SAMPLE_NAME = "next_word"
_FOLDER = Path(__file__).parents[1] / "sample_files"


@dataclass(frozen=True)
class HeldoutText:
    """Words of an address that the training did not see, and the word that came next."""

    context: str
    next_word: str


@dataclass(frozen=True)
class Sample:
    """The files of the trained model: head, encoder, list of words; and held-out texts."""

    folder: Path

    @property
    def weights(self) -> Path:
        return self.folder / "weights.npz"

    @property
    def encoder(self) -> exporter.EncoderOptions:
        return exporter.EncoderOptions(
            self.folder / "encoder.onnx",
            lengths="lengths",
            tokenizer=self.folder / "words.json",
        )

    @cached_property
    def heldout(self) -> list[HeldoutText]:
        lines = (self.folder / "heldout.jsonl").read_text("utf-8").splitlines()
        return [HeldoutText(row["context"], row["next"]) for row in map(json.loads, lines)]

    @cached_property
    def perplexity(self) -> float:
        """The perplexity of the held-out texts, as the trainer computed it."""
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
    """Returns the sample's bundle, and exports it if its files or the exporter have changed."""
    files = (sample.weights, *sample.encoder.files)
    expected = bundle.Source(
        format="theano",
        files={file.name: bundle.sha256(file) for file in files},
        exporter=exporter.exporter_version(),
    )
    versions = bundle.versions(repository / SAMPLE_NAME)
    if versions:
        with suppress(bundle.BundleError):  # a broken bundle is exported again
            opened = bundle.open_bundle(repository / SAMPLE_NAME / str(versions[-1]))
            if opened.manifest.source == expected:
                return opened
    return exporter.export_file(
        sample.weights,
        repository / SAMPLE_NAME / str(max(versions, default=0) + 1),
        source="theano",
        labels=sample.folder / "labels.txt",
        encoder=sample.encoder,
    )
