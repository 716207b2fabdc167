"""`hsoftmax export` of adaptive softmaxes: its options, and the format that it prints."""

import json
from pathlib import Path

import pytest

from hsoftmax.cli import run

DATA = Path(__file__).parents[1] / "exporter" / "sources" / "data"


def test_export_prints_the_detected_format(tmp_path, capsys):
    weights = DATA / "pytorch_upstream.safetensors"
    assert run(["export", str(weights), "--to", str(tmp_path / "words")]) == 0
    printed = capsys.readouterr().out
    assert "AdaptiveLogSoftmaxWithLoss, 3 tail(s) (--from pytorch)" in printed
    assert "20 targets in 8 clusters" in printed
    manifest = json.loads((tmp_path / "words" / "1" / "bundle.json").read_text())
    assert manifest["source"]["format"] == "pytorch"


def test_cutoffs_and_the_order_of_clusters_are_options(tmp_path, capsys):
    weights = str(DATA / "transformer_xl_div_1.safetensors")
    digests = set()
    for order in ("ascending", "reversed"):
        arguments = ["export", weights, "--cutoffs", "6,12,18", "--cluster-order", order]
        assert run([*arguments, "--to", str(tmp_path / order)]) == 0
        digests.add(json.loads((tmp_path / order / "1" / "bundle.json").read_text())["digest"])
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("cutoffs", "code", "message"),
    [
        ("6,x", 2, "expected numbers separated by commas, got '6,x'"),
        ("12,6", 2, "expected ascending numbers from 1, got 12,6"),
        ("0,6", 2, "expected ascending numbers from 1, got 0,6"),
        ("6,12", 1, "cutoffs: expected 3 ascending numbers from 1 to 23"),
    ],
)
def test_invalid_cutoffs_are_a_one_line_error(tmp_path, capsys, cutoffs, code, message):
    weights = str(DATA / "transformer_xl_div_1.safetensors")
    assert run(["export", weights, "--cutoffs", cutoffs, "--to", str(tmp_path / "x")]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
