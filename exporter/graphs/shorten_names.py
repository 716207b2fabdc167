"""Shortens the value names inside a built graph.

spox prefixes a value's name with every scope that contains it; in nested loops these names make up
most of a graph's bytes. Inputs, outputs and weights keep their names.
"""

from collections.abc import Iterator

import onnx


def shorten_names(proto: onnx.ModelProto) -> None:
    """Rename, in place, all values except graph inputs and outputs, and clear node names."""
    ports = {port.name for port in (*proto.graph.input, *proto.graph.output)}
    short_names: dict[str, str] = {name: name for name in ("", *ports)}
    for graph in _graphs(proto.graph):
        for info in (*graph.input, *graph.output):
            info.name = short_names.setdefault(info.name, f"v{len(short_names)}")
        for node in graph.node:
            node.ClearField("name")
            for values in (node.input, node.output):
                values[:] = [
                    short_names.setdefault(name, f"v{len(short_names)}") for name in values
                ]


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _graphs(attribute.g)
