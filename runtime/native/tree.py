"""The native kernels of a softmax over a binary tree: target_log_prob and top_k."""

from collections.abc import Mapping
from ctypes import POINTER, Structure, byref, c_double, c_int32, c_int64, c_void_p

import numpy as np

from hsoftmax.models.arrays import Array
from hsoftmax.models.choices import Compat
from hsoftmax.models.huffman_softmax import FASTTEXT_EPSILON

from .kernel import address_of_flag
from .library import NativeLibrary, expect_input, expect_ok, expect_tensor


class _Tree(Structure):
    _fields_ = (
        ("weight", c_void_p),
        ("bias", c_void_p),
        ("path", c_void_p),
        ("sign", c_void_p),
        ("children", c_void_p),
        ("nodes", c_int64),
        ("targets", c_int64),
        ("depth", c_int64),
        ("hidden_size", c_int64),
        ("epsilon", c_double),
    )


class TreeTargetLogProb:
    """The task target_log_prob on the tensors of a bundle, which stay mapped."""

    def __init__(
        self, library: NativeLibrary, tensors: Mapping[str, Array], compat: Compat
    ) -> None:
        """Raises NativeError if the tensors do not fit each other."""
        self._function = library.functions.hsoftmax_tree_target_log_prob
        self._function.argtypes = [
            POINTER(_Tree), c_void_p, c_int64, c_void_p, c_void_p, c_int64, c_void_p, c_void_p,
        ]  # fmt: skip
        self._tensors, self._tree = tensors, _tree(tensors, compat)

    def __call__(self, feeds: Mapping[str, Array], stop: c_int32 | None = None) -> list[Array]:
        """Return log_prob [pairs] of hidden [batch, hidden_size], row and target [pairs].

        Raises:
            NativeError: an input of another type or shape, a row or target out of range, or `stop`.
        """
        width = self._tree.hidden_size
        hidden = expect_input("hidden", feeds["hidden"], np.float32, (None, width))
        row = expect_input("row", feeds["row"], np.int64, (None,))
        target = expect_input("target", feeds["target"], np.int64, row.shape)
        log_prob = np.empty(len(row), dtype=np.float32)
        status = self._function(
            byref(self._tree), hidden.ctypes.data, len(hidden), row.ctypes.data,
            target.ctypes.data, len(row), address_of_flag(stop), log_prob.ctypes.data,
        )  # fmt: skip
        expect_ok(status)
        return [log_prob]


class TreeTopK:
    """The task top_k on the tensors of a bundle, which stay mapped."""

    def __init__(
        self, library: NativeLibrary, tensors: Mapping[str, Array], compat: Compat
    ) -> None:
        """Raises NativeError if the tensors do not fit each other."""
        self._function = library.functions.hsoftmax_tree_top_k
        self._function.argtypes = [
            POINTER(_Tree), c_void_p, c_int64, c_int64, c_int64, c_void_p, c_void_p, c_void_p,
            c_void_p, c_void_p,
        ]  # fmt: skip
        self._tensors, self._tree = tensors, _tree(tensors, compat)

    def __call__(self, feeds: Mapping[str, Array], stop: c_int32 | None = None) -> list[Array]:
        """Return log_prob and target [batch, k], opened nodes and exact [batch].

        The inputs are hidden [batch, hidden_size], k [1] and max_blocks [1]; 0 is no limit.

        Raises:
            NativeError: an input of another type or shape, k out of range, or `stop`.
        """
        width = self._tree.hidden_size
        hidden = expect_input("hidden", feeds["hidden"], np.float32, (None, width))
        k = int(expect_input("k", feeds["k"], np.int64, (1,))[0])
        max_nodes = int(expect_input("max_blocks", feeds["max_blocks"], np.int64, (1,))[0])
        batch, columns = len(hidden), min(max(k, 0), self._tree.targets)
        log_prob = np.empty((batch, columns), dtype=np.float32)
        target = np.empty((batch, columns), dtype=np.int64)
        opened, exact = np.empty(batch, dtype=np.int64), np.empty(batch, dtype=np.bool_)
        status = self._function(
            byref(self._tree), hidden.ctypes.data, batch, k, max_nodes, address_of_flag(stop),
            log_prob.ctypes.data, target.ctypes.data, opened.ctypes.data, exact.ctypes.data,
        )  # fmt: skip
        expect_ok(status)
        return [log_prob, target, opened, exact]


def _tree(tensors: Mapping[str, Array], compat: Compat) -> _Tree:
    """Describe a tree. Raises NativeError if its tensors do not fit each other."""
    nodes, hidden_size = tensors["syn1"].shape
    targets, depth = tensors["path"].shape
    bias = tensors.get("bias")
    return _Tree(
        expect_tensor("syn1", tensors["syn1"], np.float32, (nodes, hidden_size)),
        None if bias is None else expect_tensor("bias", bias, np.float32, (nodes,)),
        expect_tensor("path", tensors["path"], np.int32, (targets, depth)),
        expect_tensor("sign", tensors["sign"], np.int8, (targets, depth)),
        expect_tensor("children", tensors["children"], np.int32, (nodes, 2)),
        nodes, targets, depth, hidden_size, FASTTEXT_EPSILON if compat == "fasttext" else 0.0,
    )  # fmt: skip
