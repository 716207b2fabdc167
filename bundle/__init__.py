"""The bundle: what the exporter writes, the service reads, and all they know of each other."""

from hsoftmax.models.choices import Precision

from .directory import (
    Bundle,
    BundleError,
    check_hashes,
    expect_labels,
    load_tensors,
    open_bundle,
    parse_labels,
    read_labels,
    sha256,
    versions,
)
from .manifest import (
    ALIGNMENT,
    LABELS,
    MANIFEST,
    WEIGHTS,
    Accuracy,
    Check,
    Dtype,
    File,
    Graph,
    Manifest,
    Port,
    Source,
    Tensor,
)

__all__ = [
    "ALIGNMENT",
    "LABELS",
    "MANIFEST",
    "WEIGHTS",
    "Accuracy",
    "Bundle",
    "BundleError",
    "Check",
    "Dtype",
    "File",
    "Graph",
    "Manifest",
    "Port",
    "Precision",
    "Source",
    "Tensor",
    "check_hashes",
    "expect_labels",
    "load_tensors",
    "open_bundle",
    "parse_labels",
    "read_labels",
    "sha256",
    "versions",
]
