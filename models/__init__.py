"""What each softmax means: frozen arrays, and a NumPy reference that is the oracle for all else."""

from . import hierarchical_softmax
from .errors import ModelError, QueryError, UserError, WeightsError
from .hierarchical_softmax import HierarchicalSoftmax, Level, Padding
from .tensors import Model, attributes, family, from_tensors, to_tensors
from .theano import from_theano

__all__ = [
    "HierarchicalSoftmax",
    "Level",
    "Model",
    "ModelError",
    "Padding",
    "QueryError",
    "UserError",
    "WeightsError",
    "attributes",
    "family",
    "from_tensors",
    "from_theano",
    "hierarchical_softmax",
    "to_tensors",
]
