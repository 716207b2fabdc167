"""What a source is told, and what it gives back."""

from dataclasses import dataclass
from pathlib import Path

from hsoftmax import models
from hsoftmax.exporter.choices import ClusterOrder
from hsoftmax.exporter.errors import SourceError


@dataclass(frozen=True)
class Options:
    """What a weights file may not say by itself."""

    num_targets: int | None = None
    padding: models.Padding = "mask"
    cutoffs: tuple[int, ...] = ()
    cluster_order: ClusterOrder = "ascending"
    compat: models.Compat = "exact"


def expect_num_targets(options: Options, path: Path, found: int, known_by: str) -> None:
    """Raise SourceError where a file has another number of targets than it was said to have."""
    if options.num_targets not in {None, found}:
        raise SourceError(
            f"{path.name}: num_targets: expected {found}, {known_by}, got {options.num_targets}"
        )


@dataclass(frozen=True)
class Loaded:
    """A model, with the labels of its targets where the format has them.

    Attributes:
        beside: files that were read besides the one named
    """

    model: models.Model
    labels: tuple[str, ...] | None = None
    beside: tuple[Path, ...] = ()
