"""Answers what stands below a node of a hierarchy, and the marginal probability of each child.

The graphs of a bundle answer targets, clusters and the labelled inner nodes of a tree. No graph
answers a node in the middle of any other hierarchy. This package computes it from the weights where
they lie mapped: the local log-softmaxes along the path of the node, and the one over its children.
The cost is that of the path, and every bundle has it without a new export. docs/decisions/0053 says
why.
"""

from .adaptive_nodes import AdaptiveHierarchy
from .binary_nodes import BinaryHierarchy
from .children_kernel import CHILDREN, ChildrenKernel, children_session
from .level_nodes import LevelHierarchy
from .nodes import Children, Hierarchy
from .open_hierarchy import hierarchy_of, open_hierarchy

__all__ = [
    "CHILDREN",
    "AdaptiveHierarchy",
    "BinaryHierarchy",
    "Children",
    "ChildrenKernel",
    "Hierarchy",
    "LevelHierarchy",
    "children_session",
    "hierarchy_of",
    "open_hierarchy",
]
