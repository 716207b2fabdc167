"""Tests of a real hierarchy with four levels, from the trained weights to the response."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hsoftmax import bundle, models
from hsoftmax.cli import run

FOLDER = Path(__file__).parent.parent / "examples" / "icd10"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> bundle.Bundle:
    """Bundle that the command line exported in its own process."""
    to = tmp_path_factory.mktemp("repository") / "icd10"
    command = [sys.executable, "-W", "ignore", "-m", "hsoftmax", "export", FOLDER / "weights.npz"]
    labels = ["--labels", FOLDER / "labels.txt"]
    done = subprocess.run(
        [*command, "--from", "levels", "--to", to, *labels], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return bundle.open_bundle(to / "1")


def test_it_has_the_levels_of_the_classification(made):
    assert made.manifest.num_targets >= 90_000
    assert made.manifest.num_clusters == 22
    tensors = bundle.load_tensors(made)
    assert [len(tensors[f"level{i}.bias"]) for i in range(4)] == [22, 285, 1918, 98_186]


def test_codes_sum_to_their_chapters_and_chapters_to_one(made):
    model = models.from_tensors(
        made.manifest.family, bundle.load_tensors(made), made.manifest.attributes
    )
    hidden = np.load(FOLDER / "questions.npz")["hidden"][:2]
    reference = models.reference(model)
    codes = np.exp(reference.log_probs(model, hidden))
    for level in reversed(model.levels[1:]):
        codes = np.add.reduceat(codes, level.offsets[:-1], axis=1)
    np.testing.assert_allclose(codes, np.exp(reference.cluster_log_probs(model, hidden)))
    np.testing.assert_allclose(codes.sum(axis=1), 1)


def test_the_labels_are_the_codes_of_the_questions(made):
    labels = bundle.read_labels(made)
    asked = [json.loads(line) for line in (FOLDER / "questions.jsonl").read_text().splitlines()]
    targets = np.load(FOLDER / "questions.npz")["target"]
    assert [labels[t] for t in targets] == [question["code"] for question in asked]


def test_inspect_says_what_it_is(made, capsys):
    assert run(["inspect", str(made.path)]) == 0
    assert "98,186" in capsys.readouterr().out
