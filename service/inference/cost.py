"""How much a query costs, in multiply-adds, as far as a manifest tells."""

from hsoftmax.service.repository.loaded_bundle import LoadedBundle

_EACH_VALUE = 32  # multiply-adds in the time that it takes to normalise and write a number


def path_work(served: LoadedBundle, pairs: int) -> int:
    """Pairs that each take all clusters and one block of the usual size, or a node a step."""
    return pairs * served.path_work


def cluster_work(served: LoadedBundle, rows: int) -> int:
    """Rows that each take level 0."""
    return rows * (served.manifest.num_clusters or served.num_targets) * served.hidden_size


def full_work(served: LoadedBundle, rows: int) -> int:
    """Rows that each take every target, normalised and written."""
    return rows * served.num_targets * (served.hidden_size + _EACH_VALUE)
