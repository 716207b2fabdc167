"""Checks shared by the sources of adaptive softmaxes."""

from pathlib import Path

from hsoftmax import models
from hsoftmax.exporter.errors import SourceError

from .source import SourceModel, SourceOptions, expect_num_targets


def checked_source_model(
    model: models.AdaptiveSoftmax, path: Path, options: SourceOptions
) -> SourceModel:
    """Return the source model if its cutoffs and number of targets equal the options.

    Raises:
        SourceError: the tensors have other cutoffs or another number of targets.
    """
    if options.cutoffs and options.cutoffs != model.cutoffs:
        raise SourceError(
            f"{path.name}: cutoffs: expected {join_cutoffs(model.cutoffs)} as its tensors have, "
            f"got {join_cutoffs(options.cutoffs)}"
        )
    expect_num_targets(options, path, model.num_targets, "as its tensors have")
    return SourceModel(model)


def join_cutoffs(cutoffs: tuple[int, ...]) -> str:
    return ",".join(map(str, cutoffs))
