"""A model as named arrays and back: the form in which a bundle stores it.

Every family is one of a closed union, `Model`; `family` is its name in `bundle.json`.
"""

from collections.abc import Mapping
from typing import Any

from .arrays import Array
from .errors import WeightsError
from .hierarchical_softmax import HierarchicalSoftmax, Level

Model = HierarchicalSoftmax
Attributes = Mapping[str, Any]


def family(model: Model) -> str:
    """The family's name: that of its type."""
    return type(model).__name__


def to_tensors(model: Model) -> dict[str, Array]:
    """Every array of the model, by its name in the bundle."""
    tensors: dict[str, Array] = {}
    for i, level in enumerate(model.levels):
        tensors[f"level{i}.weight"] = level.weight
        tensors[f"level{i}.bias"] = level.bias
        tensors[f"level{i}.offsets"] = level.offsets
    if model.target_rows is not None:
        tensors["target_rows"] = model.target_rows
    return tensors


def attributes(model: Model) -> dict[str, Any]:
    """What `from_tensors` needs besides the arrays."""
    return {
        "levels": len(model.levels),
        "num_targets": model.num_targets,
        "padding": model.padding,
    }


def from_tensors(family: str, tensors: Mapping[str, Array], attributes: Attributes) -> Model:
    """The model whose `to_tensors` and `attributes` these are; the arrays are not copied.

    They were checked when the bundle was written and their bytes are guarded by its hashes.

    Raises:
        WeightsError: an unknown family or a missing tensor.
    """
    if family != HierarchicalSoftmax.__name__:
        raise WeightsError(f"family: expected HierarchicalSoftmax, got {family}")
    try:
        levels = tuple(
            Level(*(tensors[f"level{i}.{part}"] for part in ("weight", "bias", "offsets")))
            for i in range(attributes["levels"])
        )
    except KeyError as missing:
        raise WeightsError(f"tensors: expected {missing}, got {sorted(tensors)}") from None
    return HierarchicalSoftmax(
        levels, attributes["num_targets"], tensors.get("target_rows"), attributes["padding"]
    )
