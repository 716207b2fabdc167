"""Short names inside a built graph.

spox names a value after every scope that it lies in, which makes the names of nested loops most of
a graph's bytes. Inputs, outputs and weights keep theirs.
"""

from collections.abc import Iterator

import onnx


def shorten(proto: onnx.ModelProto) -> None:
    """Rename, in place, every value that is not an input or output of the graph; unname nodes."""
    ports = {port.name for port in (*proto.graph.input, *proto.graph.output)}
    short: dict[str, str] = {name: name for name in ("", *ports)}
    for graph in _graphs(proto.graph):
        for info in (*graph.input, *graph.output):
            info.name = short.setdefault(info.name, f"v{len(short)}")
        for node in graph.node:
            node.ClearField("name")
            for values in (node.input, node.output):
                values[:] = [short.setdefault(name, f"v{len(short)}") for name in values]


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _graphs(attribute.g)
