"""What a source is told, and what it gives back."""

from dataclasses import dataclass

import models


@dataclass(frozen=True)
class Options:
    """What a weights file may not say by itself."""

    num_targets: int | None = None
    padding: models.Padding = "mask"


@dataclass(frozen=True)
class Loaded:
    """A model, with the labels of its targets where the format has them."""

    model: models.Model
    labels: tuple[str, ...] | None = None
