"""The short form of the campaign: a few hundred mutations with a fixed seed, and its own checks."""

import pytest

from .campaign import Report, Turn, run_child
from .child import FIRST_MUTATION
from .parsers import PARSERS

SEED, COUNT = "0", 25
SLOW = {"hdf5"}  # a process an input
GROUPS = {
    "bodies": ["json", "npy", "arrow", "ndjson-stream", "arrow-stream", "gzip", "zstd", "multipart",
               "url", "tensors"],
    "files": [name for name in PARSERS if name.endswith("-file")],
    "weights": ["npz", "safetensors", "pytorch", "pickle", "fasttext", "config", "shards"],
    "bundles": ["manifest", "onnx"],
}  # fmt: skip


def test_every_parser_is_tried():
    assert {name for names in GROUPS.values() for name in names} | SLOW == set(PARSERS)


@pytest.mark.parametrize("group", GROUPS)
def test_mutations_give_one_error_each(tmp_path, group):
    report = Report()
    turns = [Turn(name, 60, FIRST_MUTATION, COUNT) for name in GROUPS[group]]
    assert run_child(turns, SEED, tmp_path, report) == []
    assert [(f.parser, f.kind, f.detail) for f in report.failures] == []
    assert report.tried == dict.fromkeys(GROUPS[group], COUNT)
