"""The example whose head tests ask with hidden states: examples/state_of_the_union."""

import json
from pathlib import Path

import numpy as np

from hsoftmax import bundle, exporter
from hsoftmax.models.arrays import Float32, Int64

FOLDER = Path(__file__).parents[1] / "examples" / "state_of_the_union"
WEIGHTS, LABELS = FOLDER / "weights.npz", FOLDER / "labels.txt"
PERPLEXITY = float(json.loads((FOLDER / "training.json").read_text())["heldout_perplexity"])


def read_heldout() -> tuple[Float32, Int64]:
    """Hidden states [M, H], and the word that came next in the text, [M]."""
    with np.load(FOLDER / "heldout.npz", allow_pickle=False) as arrays:
        return arrays["hidden"], arrays["target"]


def export_first_example(repository: Path) -> bundle.Bundle:
    """Export it as `state_of_the_union/1`."""
    to = repository / "state_of_the_union" / "1"
    return exporter.export_file(WEIGHTS, to, source="theano", labels=LABELS)
