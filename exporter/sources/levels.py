"""Source `levels`: a softmax of any number of levels, as plain arrays.

`.npz` or safetensors with weight_i [rows, H], bias_i [rows] and offsets_i [blocks + 1] for each
level i from 0, and perhaps target_rows [N], the row of the last level that each target is.
"""

import re
from pathlib import Path

from hsoftmax.exporter.errors import SourceError
from hsoftmax.models import HierarchicalSoftmax, hierarchical_softmax

from .array_files import read_arrays, require
from .detection import names
from .source import Loaded, Options

_OURS = re.compile(r"(weight|bias|offsets)_(0|[1-9]\d*)|target_rows")
_PARTS = ("weight", "bias", "offsets")


def load(path: Path, options: Options) -> Loaded:
    """The file's levels; `options.num_targets` says how many rows of the last one are targets."""
    arrays = read_arrays(path, lambda name: _OURS.fullmatch(name) is not None)
    numbers = {int(name.rpartition("_")[2]) for name in arrays if name != "target_rows"}
    levels = tuple(
        hierarchical_softmax.build_level(
            f"level {i}", *require(arrays, *(f"{part}_{i}" for part in _PARTS), path=path)
        )
        for i in range(max(numbers, default=0) + 1)
    )
    rows = arrays.get("target_rows")
    if rows is not None and rows.ndim != 1:
        raise SourceError(f"{path.name}: target_rows: expected [N], got {list(rows.shape)}")
    targets = levels[-1].num_rows if rows is None else len(rows)
    model: HierarchicalSoftmax = hierarchical_softmax.build(
        levels,
        num_targets=options.num_targets or targets,
        target_rows=rows,
        padding=options.padding,
    )
    return Loaded(model)


def recognises(path: Path) -> str | None:
    found = names(path)
    if not {f"{part}_0" for part in _PARTS} <= found:
        return None
    return f"arrays of {sum(name.startswith('weight_') for name in found)} level(s)"
