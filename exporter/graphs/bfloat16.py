"""Gives weights of bfloat16 their type in a built graph.

NumPy does not have the type, and spox takes types from NumPy. So a graph function uses weights of
uint16, which nothing else in a graph has, and casts them to float32. Here they become bfloat16.
"""

import onnx

_UINT16, _BFLOAT16 = onnx.TensorProto.UINT16, onnx.TensorProto.BFLOAT16


def declare_bfloat16(graph: onnx.GraphProto) -> None:
    """Change the type of each uint16 value of a graph and of the graphs inside it."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == _UINT16:
            value.type.tensor_type.elem_type = _BFLOAT16
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                declare_bfloat16(attribute.g)
