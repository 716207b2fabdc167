"""Describes a softmax over a binary tree to the library."""

from collections.abc import Mapping

import numpy as np

from hsoftmax.models.arrays import Array
from hsoftmax.models.choices import Compat
from hsoftmax.models.huffman_softmax import FASTTEXT_EPSILON

from .library import NativeLibrary, expect_tensor
from .model import NativeModel, optional_pointer, weight_fields


def tree_model(library: NativeLibrary, tensors: Mapping[str, Array], compat: Compat) -> NativeModel:
    """Describe a tree. Raises NativeError if its tensors do not fit each other."""
    path = tensors["path"]
    (nodes, hidden_size), (targets, depth) = tensors["syn1"].shape, path.shape
    fields = weight_fields(library, "syn1", tensors, (nodes, hidden_size), nodes)
    expect_tensor("path", path, np.int32, (targets, depth))
    expect_tensor("sign", tensors["sign"], np.int8, (targets, depth))
    expect_tensor("children", tensors["children"], np.int32, (nodes, 2))
    structure = library.ffi.new("hsoftmax_tree *", fields | {
        "bias": optional_pointer(library, "bias", tensors, np.float32, nodes),
        "path": library.pointer(path),
        "sign": library.pointer(tensors["sign"]),
        "children": library.pointer(tensors["children"]),
        "nodes": nodes,
        "targets": targets,
        "depth": depth,
        "hidden_size": hidden_size,
        "epsilon": FASTTEXT_EPSILON if compat == "fasttext" else 0.0,
    })  # fmt: skip
    return NativeModel("tree", structure, hidden_size, targets, depth, (tensors,))
