"""Hidden rows and the numbers of the float64 reference for them, stored beside each bundle."""

from collections.abc import Mapping

import numpy as np

from hsoftmax import models
from hsoftmax.models.arrays import Array, Float32

_LOGIT_SCALES = {"ordinary": 10.0, "large": 100.0, "extreme": 1e4}
_NUM_ROWS = {"ordinary": 40, "large": 3, "extreme": 3}  # more than 32 rows share a block
_TOLERANCE, _RELATIVE_TOLERANCE = 1e-5, 1e-6


def reference_numbers(model: models.Model, steps: int) -> dict[str, Array]:
    """Return arrays by `<case>.<name>`: inputs, outputs and the tolerance of each case.

    `steps` is the number of local softmaxes on a path.
    """
    rng = np.random.default_rng(0)
    if isinstance(model, models.SparseBlockDot):
        return _with_prefix("ordinary", _of_layer(model, rng))
    numbers: dict[str, Array] = {}
    for name, scale in _LOGIT_SCALES.items():
        numbers |= _with_prefix(name, _of_softmax(model, _NUM_ROWS[name], scale, steps, rng))
    return numbers


def _of_softmax(
    model: models.Softmax, rows: int, scale: float, steps: int, rng: np.random.Generator
) -> dict[str, Array]:
    reference = models.reference(model)
    hidden: Float32 = rng.standard_normal((rows, model.hidden_size)).astype(np.float32)
    hidden *= np.float32(scale / (reference.largest_logit(model, hidden) or 1))
    tolerance = max(_TOLERANCE, _RELATIVE_TOLERANCE * steps**0.5 * scale)
    numbers = {
        "hidden": hidden,
        "log_probs": reference.log_probs(model, hidden),
        "tolerance": np.array(tolerance),
    }
    if model.num_clusters is not None:
        numbers["cluster_log_probs"] = reference.cluster_log_probs(model, hidden)
    return numbers


def _of_layer(model: models.SparseBlockDot, rng: np.random.Generator) -> dict[str, Array]:
    sizes = model.sizes
    feeds = {
        "h": rng.standard_normal((9, 3, sizes.input_size)).astype(np.float32),
        "input_index": rng.integers(0, sizes.input_blocks, (9, 3)),
        "output_index": rng.integers(0, sizes.output_blocks, (9, 5)),
    }
    output = models.sparse_block_dot.block_dot(model, **feeds)
    return {**feeds, "output": output, "tolerance": np.array(_TOLERANCE)}


def _with_prefix(case: str, numbers: Mapping[str, Array]) -> dict[str, Array]:
    return {f"{case}.{name}": array for name, array in numbers.items()}
