"""Opens the hierarchy of a bundle."""

from collections.abc import Mapping
from typing import Any

from hsoftmax.bundle import Bundle, load_tensors
from hsoftmax.models.arrays import Array

from .adaptive_nodes import AdaptiveHierarchy
from .binary_nodes import BinaryHierarchy
from .level_nodes import LevelHierarchy
from .nodes import Hierarchy


def open_hierarchy(bundle: Bundle) -> Hierarchy | None:
    """Return the hierarchy of a bundle, or None for a layer without a softmax.

    That of a binary tree has read the paths of all targets, which takes a second for millions.
    """
    manifest = bundle.manifest
    if manifest.num_targets is None:
        return None
    return hierarchy_of(
        manifest.family, load_tensors(bundle), manifest.attributes, manifest.num_targets
    )


def hierarchy_of(
    family: str, tensors: Mapping[str, Array], attributes: Mapping[str, Any], num_targets: int
) -> Hierarchy:
    """Return the hierarchy of the stored tensors of a softmax."""
    match family:
        case "AdaptiveSoftmax":
            return AdaptiveHierarchy(tensors, attributes["cutoffs"], num_targets)
        case "HuffmanSoftmax":
            tree = BinaryHierarchy(tensors, attributes.get("compat", "exact"))
            tree.prepare()
            return tree
        case _:
            return LevelHierarchy(tensors, int(attributes["levels"]), num_targets)
