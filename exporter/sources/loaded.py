"""What a source is told, and what it gives back."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import models

ClusterOrder = Literal["ascending", "reversed"]


@dataclass(frozen=True)
class Options:
    """What a weights file may not say by itself."""

    num_targets: int | None = None
    padding: models.Padding = "mask"
    cutoffs: tuple[int, ...] = ()
    cluster_order: ClusterOrder = "ascending"
    compat: models.Compat = "exact"


@dataclass(frozen=True)
class Loaded:
    """A model, with the labels of its targets where the format has them.

    Attributes:
        beside: files that were read besides the one named
    """

    model: models.Model
    labels: tuple[str, ...] | None = None
    beside: tuple[Path, ...] = ()
