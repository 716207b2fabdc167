"""Estimated cost of each kind of query: multiply-adds, from the manifest alone, and bytes.

The operations, the streams and the jobs use these formulas. The engine uses the multiply-adds to
schedule calls and to size batches, and the bytes to bound its queues.
"""

from hsoftmax.models.sparse_block_dot import BlockSizes
from hsoftmax.runtime.sessions import Feeds
from hsoftmax.service.repository.loaded_bundle import LoadedBundle

_COST_PER_VALUE = 32  # multiply-adds in the time to normalise and encode one number


def call_bytes(feeds: Feeds, values: int) -> int:
    """Bytes that a call holds while it waits: its inputs, and room for float32 outputs."""
    return sum(array.nbytes for array in feeds.values()) + 4 * values


def path_cost(bundle: LoadedBundle, pairs: int) -> int:
    """Cost of pairs that each evaluate one path: a node a step, or all clusters and one block."""
    return pairs * _path_rows(bundle) * bundle.hidden_size


def _path_rows(bundle: LoadedBundle) -> int:
    """Weight rows that one path multiplies, with a block of the mean size."""
    manifest = bundle.manifest
    if manifest.family == "HuffmanSoftmax":
        return int(manifest.attributes["depth"])
    clusters = manifest.num_clusters or bundle.num_targets
    return clusters + -(-bundle.num_targets // clusters)


def cluster_cost(bundle: LoadedBundle, rows: int) -> int:
    """Cost of rows that each evaluate level 0."""
    return rows * (bundle.manifest.num_clusters or bundle.num_targets) * bundle.hidden_size


def children_cost(bundle: LoadedBundle, rows: int, node: int | None) -> int:
    """Cost of rows that each evaluate the blocks on a node's path, and that of its children."""
    return rows * bundle.hierarchy.rows(node) * bundle.hidden_size


def full_cost(bundle: LoadedBundle, rows: int) -> int:
    """Cost of rows that each evaluate, normalise and encode every target."""
    return rows * bundle.num_targets * (bundle.hidden_size + _COST_PER_VALUE)


def top_k_cost(bundle: LoadedBundle, rows: int, max_blocks: int) -> int:
    """Upper bound of the cost of a top-k search; without a limit of blocks it may open all."""
    full = full_cost(bundle, rows)
    return min(full, path_cost(bundle, rows * max_blocks)) if max_blocks else full


def block_dot_cost(sizes: BlockSizes, pairs: int) -> int:
    """Cost of pairs of an input and an output block, one product each."""
    return pairs * sizes.input_size * sizes.output_size
