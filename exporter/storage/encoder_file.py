"""Reads an encoder's ONNX file, keeps the part that one output needs, and writes it into a bundle.

Large weights go into `encoder.weights`, at aligned offsets, so that ONNX Runtime maps them.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx

from hsoftmax import bundle
from hsoftmax.exporter.errors import EncoderRefused

ENCODER = "encoder.onnx"
ENCODER_WEIGHTS = "encoder.weights"
_MIN_EXTERNAL_BYTES = 1024
_TABLE_READERS = {"EmbedLayerNormalization", "Gather", "GatherElements", "GatherND"}


def read_encoder(path: Path) -> onnx.ModelProto:
    """Read a model with its external data. Raises EncoderRefused."""
    try:
        bundle.expect_regular(path)
        return onnx.load(path)
    except Exception as error:  # the parser's, of any type
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EncoderRefused(f"expected an ONNX model, got: {reason}") from None


def keep_output(model: onnx.ModelProto, name: str) -> None:
    """Remove the other outputs, and the nodes, weights and inputs that only they need."""
    graph, needed, kept = model.graph, {name}, []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(_names_read(node))
    _replace(graph.node, list(reversed(kept)))
    _replace(graph.output, [output for output in graph.output if output.name == name])
    _replace(graph.input, [value for value in graph.input if value.name in needed])
    _replace(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in needed])


def write_encoder_file(model: onnx.ModelProto, folder: Path) -> str | None:
    """Write the model, and the name of the file of its weights, or None if it needs none."""
    large = [_raw(tensor) for tensor in model.graph.initializer if _is_large(tensor)]
    if large:
        with (folder / ENCODER_WEIGHTS).open("wb") as file:
            for tensor in large:
                file.write(bytes(-file.tell() % bundle.ALIGNMENT))
                _make_external(tensor, file.tell())
                file.write(tensor.raw_data)
                tensor.ClearField("raw_data")
    (folder / ENCODER).write_bytes(model.SerializeToString(deterministic=True))
    return ENCODER_WEIGHTS if large else None


def count_multiply_adds(model: onnx.ModelProto) -> int:
    """Estimate the work for one position: a multiply-add for each weight outside tables of ids."""
    tables = {
        node.input[0] for node in model.graph.node if node.op_type in _TABLE_READERS and node.input
    }
    return sum(
        _num_elements(tensor)
        for tensor in model.graph.initializer
        if tensor.name not in tables and len(tensor.dims) > 1
    )


def _names_read(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the values that a node reads, those that its subgraphs take from outside included."""
    yield from node.input
    for attribute in node.attribute:
        for graph in [attribute.g, *attribute.graphs]:
            for inner in graph.node:
                yield from _names_read(inner)
            yield from (output.name for output in graph.output)


def _replace(field: object, values: Iterable[object]) -> None:
    values = list(values)
    del field[:]  # type: ignore[attr-defined]  # protobuf's, without types
    field.extend(values)  # type: ignore[attr-defined]


def _is_large(tensor: onnx.TensorProto) -> bool:
    return len(tensor.raw_data) >= _MIN_EXTERNAL_BYTES or 4 * len(tensor.float_data) >= (
        _MIN_EXTERNAL_BYTES
    )


def _raw(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """Return the tensor, which now has its numbers as bytes."""
    if not tensor.raw_data:
        tensor.CopyFrom(
            onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name)
        )
    return tensor


def _make_external(tensor: onnx.TensorProto, offset: int) -> None:
    location = {"location": ENCODER_WEIGHTS, "offset": offset, "length": len(tensor.raw_data)}
    tensor.data_location = onnx.TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in location.items():
        tensor.external_data.add(key=key, value=str(value))


def _num_elements(tensor: onnx.TensorProto) -> int:
    count = 1
    for size in tensor.dims:
        count *= size
    return count
