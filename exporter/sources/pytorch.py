"""Source `pytorch`: the state of a `torch.nn.AdaptiveLogSoftmaxWithLoss`, under any prefix.

head.weight [shortlist + tails, H], head.bias or none; tail.i.0.weight [width, H], which may have a
width of 0, and tail.i.1.weight [size, width]. The state lacks the cutoffs; shapes imply them.
"""

import re
from pathlib import Path

from hsoftmax.exporter.errors import SourceError
from hsoftmax.models import adaptive_softmax

from .adaptive import loaded
from .detection import names
from .source import Loaded, Options
from .state_dict import numbered, read_state, sole_prefix

_OURS = re.compile(r"(^|\.)(head\.(weight|bias)|tail\.\d+\.[01]\.(weight|bias))$")


def load(path: Path, options: Options) -> Loaded:
    """The module's softmax; `options.cutoffs`, where given, must be what the shapes imply."""
    state = read_state(path, lambda name: _OURS.search(name) is not None)
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
    return loaded(adaptive_softmax.build(head, tails), path, options)


def recognises(path: Path) -> str | None:
    found = names(path)
    if not any(name.endswith("tail.0.1.weight") for name in found):
        return None
    tails = sum(re.search(r"tail\.\d+\.1\.weight$", name) is not None for name in found)
    return f"the state of an AdaptiveLogSoftmaxWithLoss, {tails} tail(s)"
