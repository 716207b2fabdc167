"""Source `pytorch`: the state of a `torch.nn.AdaptiveLogSoftmaxWithLoss`, under any prefix.

head.weight [shortlist + tails, H], head.bias or none; tail.i.0.weight [width, H], which may have a
width of 0, and tail.i.1.weight [size, width]. The state has no cutoffs; the shapes imply them.
"""

import re
from pathlib import Path

from hsoftmax.exporter.errors import SourceError
from hsoftmax.models import adaptive_softmax

from .adaptive import checked_source_model
from .detection import contained_names
from .source import SourceModel, SourceOptions
from .state_dict import numbered, read_state, sole_prefix

_NAMES = re.compile(r"(^|\.)(head\.(weight|bias)|tail\.\d+\.[01]\.(weight|bias))$")


def load(path: Path, options: SourceOptions) -> SourceModel:
    """Load the module's softmax; `options.cutoffs`, if given, must equal those of the shapes."""
    state = read_state(path, lambda name: _NAMES.search(name) is not None)
    prefix = sole_prefix(state, "tail.0.1.weight", "head.weight", path=path)
    tail, build = f"{prefix}tail.", adaptive_softmax.build_projected
    weights = numbered(state, tail, ".1.weight", path=path)
    projections = numbered(state, tail, ".0.weight", path=path)
    if len(projections) < len(weights):
        raise SourceError(f"{path.name}: expected {tail}{len(projections)}.0.weight, got none")
    head = build("head", state[f"{prefix}head.weight"], state.get(f"{prefix}head.bias"))
    tails = [
        build(f"tail {i}", weight, state.get(f"{tail}{i}.1.bias"), projection)
        for i, (weight, projection) in enumerate(zip(weights, projections, strict=False))
    ]
    return checked_source_model(adaptive_softmax.build(head, tails), path, options)


def detect(path: Path) -> str | None:
    """Return a description of the file if it has this format, else None."""
    names = contained_names(path)
    if not any(name.endswith("tail.0.1.weight") for name in names):
        return None
    tails = sum(re.search(r"tail\.\d+\.1\.weight$", name) is not None for name in names)
    return f"the state of an AdaptiveLogSoftmaxWithLoss, {tails} tail(s)"
