"""The public names of `hsoftmax.models`, for other packages."""

from . import adaptive_softmax, hierarchical_softmax, huffman_softmax, sparse_block_dot, taxonomy
from .adaptive_softmax import AdaptiveSoftmax, ProjectedLayer
from .choices import Compat, Padding
from .errors import ModelError, QueryError, UserError, WeightsError
from .families import (
    FAMILIES,
    Model,
    Softmax,
    attributes,
    family,
    from_tensors,
    reference,
    to_tensors,
)
from .hierarchical_softmax import HierarchicalSoftmax, Level
from .huffman_softmax import HuffmanSoftmax
from .sparse_block_dot import SparseBlockDot
from .theano import from_theano

__all__ = [
    "FAMILIES",
    "AdaptiveSoftmax",
    "Compat",
    "HierarchicalSoftmax",
    "HuffmanSoftmax",
    "Level",
    "Model",
    "ModelError",
    "Padding",
    "ProjectedLayer",
    "QueryError",
    "Softmax",
    "SparseBlockDot",
    "UserError",
    "WeightsError",
    "adaptive_softmax",
    "attributes",
    "family",
    "from_tensors",
    "from_theano",
    "hierarchical_softmax",
    "huffman_softmax",
    "reference",
    "sparse_block_dot",
    "taxonomy",
    "to_tensors",
]
