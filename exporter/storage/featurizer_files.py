"""Writes the files of a featurizer: its arrays once, and the description that names them."""

from pathlib import Path

from hsoftmax.featurizers import (
    DESCRIPTION,
    FEATURES,
    Featurizer,
    describe,
    featurizer_tensors,
)

from .weights_file import write_weights


def write_featurizer(folder: Path, featurizer: Featurizer) -> None:
    """Write `featurizer.bin` and `featurizer.json` into the folder of a bundle."""
    table = write_weights(folder / FEATURES, featurizer_tensors(featurizer))
    description = describe(featurizer, table)
    (folder / DESCRIPTION).write_text(description.model_dump_json(indent=1) + "\n", "utf-8")
