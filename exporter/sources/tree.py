"""Source `tree`: a softmax over a tree of classes, with leaves at any depth, as plain arrays.

weight [nodes, H], bias [nodes] and parent [nodes], the node above each, or -1 for a root. The
children of a node have a softmax of their own, and so have the roots if there are several. The
targets are the leaves, in the order of nodes. Where all nodes have labels, inner nodes are asked
for by theirs. `models.taxonomy` has the mathematics.
"""

from pathlib import Path

from hsoftmax.exporter.files.input_file import expect_justified
from hsoftmax.models import taxonomy

from .named_tensors import named_arrays, require_arrays
from .source import SourceModel, SourceOptions, expect_num_targets

_ARRAY_NAMES = ("weight", "bias", "parent")
_BYTES_PER_NUMBER = 4


def load(path: Path, options: SourceOptions) -> SourceModel:
    """Load the file's tree; labels of all nodes serve as those of the leaves."""
    with named_arrays(path, options, set(_ARRAY_NAMES).__contains__) as arrays:
        weight, bias, parent = require_arrays(arrays, *_ARRAY_NAMES, path=path)
        taxonomy.expect_nodes(weight, bias, parent)
        tree = taxonomy.build_taxonomy(parent)
        expect_num_targets(options, path, len(tree.leaves), "the leaves")
        layout = taxonomy.lay_out(tree)
        num_bytes = _BYTES_PER_NUMBER * layout.num_rows * weight.shape[1]
        expect_justified(f"{path.name}: weight", num_bytes, path.stat().st_size)
        return SourceModel(
            taxonomy.from_taxonomy(weight, bias, layout),
            target_nodes=tuple(tree.leaves.tolist()),
            num_nodes=tree.num_nodes,
            inner_nodes=tuple(tree.inner.tolist()),
            inner_ends=taxonomy.inner_nodes(tree, layout, tree.inner),
        )


def recognise(names: frozenset[str]) -> str | None:
    """Return a description of a file with these names if it has this format, else None."""
    return "arrays weight, bias, parent of a tree" if names >= set(_ARRAY_NAMES) else None
