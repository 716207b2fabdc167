"""What each softmax means: frozen arrays, and a NumPy reference that is the oracle for all else."""

from . import hierarchical_softmax
from .errors import ModelError, QueryError, UserError, WeightsError
from .families import FAMILIES, Model, attributes, family, from_tensors, reference, to_tensors
from .hierarchical_softmax import HierarchicalSoftmax, Level, Padding
from .theano import from_theano

__all__ = [
    "FAMILIES",
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
    "reference",
    "to_tensors",
]
