"""The tensors of a model as a bundle stores them; `models.storage.tensors` reads them back."""

from hsoftmax import bundle, models
from hsoftmax.exporter.graphs import graph_tensors
from hsoftmax.models.arrays import Array

from .layout import block_by_block
from .precision import in_precision


def stored_tensors(model: models.Model, precision: bundle.Precision) -> dict[str, Array]:
    """The model's own and those of its graphs, in so many bits, in the order they are read in.

    Raises:
        ExportError: a weight beyond what float16 holds.
    """
    tensors = {**models.to_tensors(model), **graph_tensors(model)}
    return block_by_block(in_precision(tensors, precision))
