"""Source `pytorch`: the state of a `torch.nn.AdaptiveLogSoftmaxWithLoss`, under any prefix.

head.weight [shortlist + tails, H], head.bias or none (head_bias=False); tail.i.0.weight [width, H],
which may have a width of 0, and tail.i.1.weight [size, width]. PyTorch's own tails have no biases;
tail.i.0.bias and tail.i.1.bias of a module that was changed are used. The state has no cutoffs; the
shapes imply them.
"""

import re
from pathlib import Path

from hsoftmax.exporter.errors import SourceError
from hsoftmax.models import ProjectedLayer, adaptive_softmax
from hsoftmax.models.arrays import Array

from .adaptive import checked_source_model
from .named_tensors import NamedTensors, named_tensors
from .source import SourceModel, SourceOptions
from .state_dict import numbered, select_prefix

_OWN_NAMES = re.compile(r"(^|\.)(head\.(weight|bias)|tail\.\d+\.[01]\.(weight|bias))$")


def load(path: Path, options: SourceOptions) -> SourceModel:
    """Load the module's softmax; `options.cutoffs`, if given, must equal those of the shapes."""
    with named_tensors(path, options, _is_own) as state:
        prefix = select_prefix(state, "tail.0.1.weight", "head.weight", path=path, options=options)
        weights = numbered(state, f"{prefix}tail.", ".1.weight", path=path)
        tails = [
            _tail(state, f"{prefix}tail.{i}.", f"tail {i}", weight, path)
            for i, weight in enumerate(weights)
        ]
        head = adaptive_softmax.build_projected(
            "head", state[f"{prefix}head.weight"], state.get(f"{prefix}head.bias")
        )
        return checked_source_model(adaptive_softmax.build(head, tails), path, options)


def recognise(names: frozenset[str]) -> str | None:
    """Return a description of a file with these names if it has this format, else None."""
    if not any(name.endswith("tail.0.1.weight") for name in names):
        return None
    tails = sum(re.search(r"tail\.\d+\.1\.weight$", name) is not None for name in names)
    return f"the state of an AdaptiveLogSoftmaxWithLoss, {tails} tail(s)"


def _is_own(name: str) -> bool:
    return _OWN_NAMES.search(name) is not None


def _tail(state: NamedTensors, prefix: str, name: str, weight: Array, path: Path) -> ProjectedLayer:
    projection = state.get(f"{prefix}0.weight")
    if projection is None:
        raise SourceError(f"{path.name}: expected {prefix}0.weight, got none")
    biases = state.get(f"{prefix}1.bias"), state.get(f"{prefix}0.bias")
    return adaptive_softmax.build_projected(
        name, weight, biases[0], projection, projection_bias=biases[1]
    )
