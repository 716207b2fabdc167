"""The families: a closed union, and for each the module that says what it means.

Every module of a family has functions of the same names: `to_tensors`, `attributes`,
`from_tensors`, and the reference: `log_probs`, `target_log_prob`, `top_k`, `cluster_log_probs`
(not of a binary tree, which has no clusters), `largest_logit`. `SparseBlockDot` is a layer and no
softmax: its reference is `block_dot`.
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
    """The family's name, as in `bundle.json`: that of its type."""
    return type(model).__name__


def reference(model: Model) -> ModuleType:
    """The module whose functions are the reference for this model."""
    return FAMILIES[family(model)]


def to_tensors(model: Model) -> dict[str, Array]:
    """Every array of the model, by its name in the bundle."""
    tensors: dict[str, Array] = reference(model).to_tensors(model)
    return tensors


def attributes(model: Model) -> dict[str, Any]:
    """What `from_tensors` needs besides the arrays; fit for JSON."""
    needed: dict[str, Any] = reference(model).attributes(model)
    return needed


def from_tensors(family: str, tensors: Mapping[str, Array], attributes: Mapping[str, Any]) -> Model:
    """The model whose tensors, as a bundle stores them, and `attributes` these are.

    Weights in fewer bits or in transposed blocks become float32 rows, and only those are copied.
    Nothing is checked: that was done when the bundle was written, and its hashes guard the bytes.

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
