"""What the sources of adaptive softmaxes have in common."""

from pathlib import Path

from hsoftmax import models
from hsoftmax.exporter.errors import SourceError

from .source import Loaded, Options, expect_num_targets


def loaded(model: models.AdaptiveSoftmax, path: Path, options: Options) -> Loaded:
    """The model, if it is as large and cut where the command line said it is.

    Raises:
        SourceError: cutoffs or a number of targets other than the tensors have.
    """
    if options.cutoffs and options.cutoffs != model.cutoffs:
        raise SourceError(
            f"{path.name}: cutoffs: expected {listed(model.cutoffs)} as its tensors have, "
            f"got {listed(options.cutoffs)}"
        )
    expect_num_targets(options, path, model.num_targets, "as its tensors have")
    return Loaded(model)


def listed(cutoffs: tuple[int, ...]) -> str:
    return ",".join(map(str, cutoffs))
