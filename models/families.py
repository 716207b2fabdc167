"""The closed union of model families, and the module that implements each.

Each family's module has functions of the same names: `to_tensors`, `attributes`, `from_tensors`,
and the reference `log_probs`, `target_log_prob`, `top_k`, `cluster_log_probs` (except binary
trees, which have no clusters) and `largest_logit`. `SparseBlockDot` is a layer without a softmax:
its reference is `block_dot`.
"""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from . import adaptive_softmax, hierarchical_softmax, huffman_softmax, sparse_block_dot
from .adaptive_softmax import AdaptiveSoftmax
from .arrays import Array
from .errors import WeightsError
from .hierarchical_softmax import HierarchicalSoftmax
from .huffman_softmax import HuffmanSoftmax
from .sparse_block_dot import SparseBlockDot
from .storage.tensors import model_tensors

Model = HierarchicalSoftmax | AdaptiveSoftmax | HuffmanSoftmax | SparseBlockDot
Softmax = HierarchicalSoftmax | AdaptiveSoftmax | HuffmanSoftmax

FAMILIES: Mapping[str, ModuleType] = {
    "HierarchicalSoftmax": hierarchical_softmax,
    "AdaptiveSoftmax": adaptive_softmax,
    "HuffmanSoftmax": huffman_softmax,
    "SparseBlockDot": sparse_block_dot,
}


def family(model: Model) -> str:
    """Return the family's name as in `bundle.json`: the name of the model's type."""
    return type(model).__name__


def reference(model: Model) -> ModuleType:
    """Return the module with the reference functions of this model's family."""
    return FAMILIES[family(model)]


def to_tensors(model: Model) -> dict[str, Array]:
    """Return the model's arrays by their names in the bundle."""
    tensors: dict[str, Array] = reference(model).to_tensors(model)
    return tensors


def attributes(model: Model) -> dict[str, Any]:
    """Return the JSON values that `from_tensors` needs besides the arrays."""
    values: dict[str, Any] = reference(model).attributes(model)
    return values


def from_tensors(family: str, tensors: Mapping[str, Array], attributes: Mapping[str, Any]) -> Model:
    """Build a model from a bundle's stored tensors and attributes.

    Quantised weights and transposed blocks are converted to float32 rows; nothing else is copied.
    The arrays are not checked again: the exporter checked them, and the bundle's hashes protect
    them.

    Raises:
        WeightsError: an unknown family or a missing tensor.
    """
    if family not in FAMILIES:
        raise WeightsError(f"family: expected one of {', '.join(FAMILIES)}, got {family}")
    try:
        model: Model = FAMILIES[family].from_tensors(model_tensors(tensors), attributes)
    except KeyError as missing:
        raise WeightsError(f"tensors: expected {missing}, got {sorted(tensors)}") from None
    return model
