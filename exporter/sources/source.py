"""The options that a source takes, and the model that it returns."""

from dataclasses import dataclass
from pathlib import Path

from hsoftmax import models
from hsoftmax.exporter.choices import ClusterOrder
from hsoftmax.exporter.errors import SourceError
from hsoftmax.featurizers import Featurizer
from hsoftmax.models.hierarchical_softmax import InnerNodes


@dataclass(frozen=True)
class SourceOptions:
    """Facts about the model that a weights file may lack, and choices for its export.

    Attributes:
        text: also read the parts that turn text into `hidden`, where the format has them
        prefix: of the names of one of several softmaxes in the file; None if it has only one
        names: pairs of a name of the format and the name in the file
    """

    num_targets: int | None = None
    padding: models.Padding = "mask"
    cutoffs: tuple[int, ...] = ()
    cluster_order: ClusterOrder = "ascending"
    compat: models.Compat = "exact"
    text: bool = True
    prefix: str | None = None
    names: tuple[tuple[str, str], ...] = ()


def expect_num_targets(options: SourceOptions, path: Path, num_targets: int, evidence: str) -> None:
    """Raise SourceError if the options name another number of targets than the file has."""
    if options.num_targets not in {None, num_targets}:
        raise SourceError(
            f"{path.name}: num_targets: expected {num_targets}, {evidence}, "
            f"got {options.num_targets}"
        )


@dataclass(frozen=True)
class SourceModel:
    """A model read from a file, with the labels of its targets if the format has them.

    Attributes:
        extra_files: files that were read besides the named one
        labels_error: reason why the names in the file cannot be labels; empty if there is none
        featurizer: turns text into `hidden`; None if the file has none
        no_text: reason why a file of a format with text has no featurizer; empty if there is none
        target_nodes: the node of each target, if the softmax is a tree of classes
        num_nodes: how many nodes that tree has
        inner_nodes: its nodes that are no target
        inner_ends: where the path of each of them ends; None if there is no tree
    """

    model: models.Model
    labels: tuple[str, ...] | None = None
    extra_files: tuple[Path, ...] = ()
    labels_error: str = ""
    featurizer: Featurizer | None = None
    no_text: str = ""
    target_nodes: tuple[int, ...] = ()
    num_nodes: int = 0
    inner_nodes: tuple[int, ...] = ()
    inner_ends: InnerNodes | None = None
