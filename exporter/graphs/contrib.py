"""Operators of ONNX Runtime that ONNX itself does not have, for graphs that spox builds."""

import onnx
import spox
from onnx import TensorProto, helper
from spox import Var

_DOMAIN = "com.microsoft"
_OPSETS = [helper.make_opsetid("", 21), helper.make_opsetid(_DOMAIN, 1)]


def product_with_rows(states: Var, rows: Var) -> Var:
    """states [D, R, H], rows [D, K, H] -> the products of each state with each row, [D, R, K].

    `FusedMatMul` reads the rows where they lie; a MatMul would need a transposed copy of them.
    """
    return spox.inline(_FUSED_MATMUL)(A=states, B=rows)["Y"]


def _fused_matmul() -> onnx.ModelProto:
    node = helper.make_node("FusedMatMul", ["A", "B"], ["Y"], domain=_DOMAIN, transB=1)
    inputs = [_matrices("A", "R", "H"), _matrices("B", "K", "H")]
    graph = helper.make_graph([node], "fused", inputs, [_matrices("Y", "R", "K")])
    return helper.make_model(graph, opset_imports=_OPSETS, ir_version=10)


def _matrices(name: str, rows: str, columns: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["D", rows, columns])


_FUSED_MATMUL = _fused_matmul()
