"""The native kernels of a softmax over a binary tree: target_log_prob and top_k."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from hsoftmax.models.arrays import Array
from hsoftmax.models.choices import Compat
from hsoftmax.models.huffman_softmax import FASTTEXT_EPSILON

from .kernel import StopFlag
from .library import NativeLibrary, expect_hidden, expect_ok, expect_tensor
from .path_arguments import expect_pairs
from .top_k_arguments import expect_top_k


class TreeTargetLogProb:
    """The task target_log_prob on the tensors of a bundle, which stay mapped."""

    def __init__(
        self, library: NativeLibrary, tensors: Mapping[str, Array], compat: Compat
    ) -> None:
        """Raises NativeError if the tensors do not fit each other."""
        self._library, self._tensors = library, tensors  # pointers do not keep tensors alive
        self._tree = _tree(library, tensors, compat)

    def __call__(self, feeds: Mapping[str, Array], stop: StopFlag | None = None) -> list[Array]:
        """Return log_prob [pairs] of hidden [batch, hidden_size], row and target [pairs].

        Raises:
            NativeError: an input of another type or shape, a row or target out of range, or `stop`.
        """
        pairs, pointer = expect_pairs(feeds, self._tree.hidden_size), self._library.pointer
        status = self._library.functions.hsoftmax_tree_target_log_prob(
            self._tree, pointer(pairs.hidden), len(pairs.hidden), pointer(pairs.row),
            pointer(pairs.target), len(pairs.row), self._library.flag(stop),
            pointer(pairs.log_prob),
        )  # fmt: skip
        expect_ok(status)
        return [pairs.log_prob]


class TreeTopK:
    """The task top_k on the tensors of a bundle, which stay mapped."""

    def __init__(
        self, library: NativeLibrary, tensors: Mapping[str, Array], compat: Compat
    ) -> None:
        """Raises NativeError if the tensors do not fit each other."""
        self._library, self._tensors = library, tensors  # pointers do not keep tensors alive
        self._tree = _tree(library, tensors, compat)

    def __call__(self, feeds: Mapping[str, Array], stop: StopFlag | None = None) -> list[Array]:
        """Return log_prob and target [batch, k], opened nodes and exact [batch].

        The inputs are hidden [batch, hidden_size], k [1] and max_blocks [1]; 0 is no limit.

        Raises:
            NativeError: an input of another type or shape, k out of range, or `stop`.
        """
        hidden = expect_hidden(feeds["hidden"], self._tree.hidden_size)
        arguments = expect_top_k(feeds, self._tree.targets, len(hidden))
        pointer = self._library.pointer
        status = self._library.functions.hsoftmax_tree_top_k(
            self._tree, pointer(hidden), len(hidden), arguments.k, arguments.max_blocks,
            self._library.flag(stop), *map(pointer, arguments.outputs),
        )  # fmt: skip
        expect_ok(status)
        return arguments.outputs


def _tree(library: NativeLibrary, tensors: Mapping[str, Array], compat: Compat) -> Any:  # noqa: ANN401
    """Describe a tree. Raises NativeError if its tensors do not fit each other."""
    weight, path, bias = tensors["syn1"], tensors["path"], tensors.get("bias")
    (nodes, hidden_size), (targets, depth) = weight.shape, path.shape
    expect_tensor("syn1", weight, np.float32, (nodes, hidden_size))
    expect_tensor("path", path, np.int32, (targets, depth))
    expect_tensor("sign", tensors["sign"], np.int8, (targets, depth))
    expect_tensor("children", tensors["children"], np.int32, (nodes, 2))
    if bias is not None:
        expect_tensor("bias", bias, np.float32, (nodes,))
    return library.ffi.new("hsoftmax_tree *", {
        "weight": library.pointer(weight),
        "bias": library.pointer(bias),
        "path": library.pointer(path),
        "sign": library.pointer(tensors["sign"]),
        "children": library.pointer(tensors["children"]),
        "nodes": nodes,
        "targets": targets,
        "depth": depth,
        "hidden_size": hidden_size,
        "epsilon": FASTTEXT_EPSILON if compat == "fasttext" else 0.0,
    })  # fmt: skip
