"""Source `levels`: a softmax of any number of levels, as plain arrays.

`.npz` or safetensors with weight_i [rows, H], bias_i [rows] and offsets_i [blocks + 1] for each
level i from 0, and optionally target_rows [N], the row of the last level for each target.
"""

import re
from pathlib import Path

from hsoftmax.exporter.errors import SourceError
from hsoftmax.models import HierarchicalSoftmax, Level, hierarchical_softmax

from .named_tensors import NamedTensors, named_arrays, require_arrays
from .source import SourceModel, SourceOptions

_NAMES = re.compile(r"(weight|bias|offsets)_(0|[1-9]\d{0,8})|target_rows")
_PARTS = ("weight", "bias", "offsets")


def load(path: Path, options: SourceOptions) -> SourceModel:
    """Load the file's levels; `options.num_targets` counts the last level's rows with a target."""
    with named_arrays(path, options, _is_own) as arrays:
        numbers = {int(name.rpartition("_")[2]) for name in arrays if name != "target_rows"}
        levels = tuple(_level(arrays, i, path) for i in range(max(numbers, default=0) + 1))
        rows = arrays.get("target_rows")
        if rows is not None and rows.ndim != 1:
            raise SourceError(f"{path.name}: target_rows: expected [N], got {list(rows.shape)}")
        default_num_targets = levels[-1].num_rows if rows is None else len(rows)
        model: HierarchicalSoftmax = hierarchical_softmax.build(
            levels,
            num_targets=options.num_targets or default_num_targets,
            target_rows=rows,
            padding=options.padding,
        )
        return SourceModel(model)


def _is_own(name: str) -> bool:
    return _NAMES.fullmatch(name) is not None


def _level(arrays: NamedTensors, number: int, path: Path) -> Level:
    names = (f"{part}_{number}" for part in _PARTS)
    return hierarchical_softmax.build_level(
        f"level {number}", *require_arrays(arrays, *names, path=path)
    )


def recognise(names: frozenset[str]) -> str | None:
    """Return a description of a file with these names if it has this format, else None."""
    if not {f"{part}_0" for part in _PARTS} <= names:
        return None
    return f"arrays of {sum(name.startswith('weight_') for name in names)} level(s)"
