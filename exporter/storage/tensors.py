"""Collects the tensors of a bundle; `models.storage.tensors` converts them back into a model's."""

from hsoftmax import bundle, models
from hsoftmax.exporter.graphs import graph_tensors
from hsoftmax.models.arrays import Array

from .layout import transpose_equal_blocks
from .precision import convert_precision


def stored_tensors(model: models.Model, precision: bundle.Precision) -> dict[str, Array]:
    """Return the tensors of the model and of its graphs, in the bundle's precision and layout.

    Raises:
        ExportError: a weight beyond the range of float16 or bfloat16.
    """
    tensors = {**models.to_tensors(model), **graph_tensors(model)}
    return transpose_equal_blocks(convert_precision(tensors, precision))
