"""The demonstration over HTTP, in words, and its check, which must fail for a wrong answer."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hsoftmax import bundle, models
from hsoftmax.cli import run
from hsoftmax.demo.queries import QUESTIONS, Comparison, compare, query_sample
from hsoftmax.demo.sample_model import SAMPLE_NAME, Sample, export_sample, find_sample
from hsoftmax.runtime.encoder import encode_texts, open_encoder
from tests.service.conftest import serving

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return export_sample(find_sample(), tmp_path_factory.mktemp("repository"))


@pytest.fixture(scope="module")
def few() -> Sample:
    """The sample with as many held-out texts as a test asks, whose perplexity is not known."""
    sample = Sample(find_sample().folder)
    sample.__dict__["heldout"] = sample.heldout[:20]
    return sample


def unchanged(route, answer):
    return answer


@dataclass(frozen=True)
class FakeClient:
    """A client whose answers are the reference's, changed by `spoil`."""

    made: bundle.Bundle
    spoil: Callable[[str, Any], Any] = unchanged
    parts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        manifest = self.made.manifest
        tensors = bundle.load_tensors(self.made)
        self.parts["model"] = models.from_tensors(manifest.family, tensors, manifest.attributes)
        self.parts["labels"] = bundle.read_labels(self.made)
        self.parts["encoder"] = open_encoder(self.made)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        model = self.parts["model"]
        hidden = encode_texts(self.parts["encoder"], body["inputs"])
        full = models.reference(model).log_probs(model, hidden)
        route = path.rsplit("/", 1)[1]
        return self.spoil(route, self.answer(route, full, body, self.parts["labels"]))

    def answer(self, route, full, body, labels):
        if route == "top_k":
            best = np.argsort(-full, axis=1)[:, : body["k"]]
            return {
                "results": [
                    {"labels": [labels[t] for t in row], "probabilities": np.exp(lp[row]).tolist()}
                    for row, lp in zip(best, full, strict=True)
                ]
            }
        if "targets" not in body:
            return {"probabilities": np.exp(full).tolist()}
        targets = [labels.index(label) for label in body["targets"]]
        return {"log_probabilities": full[np.arange(len(targets)), targets].tolist()}


def comparisons(fake: Any, sample: Sample) -> list[Comparison]:
    """Those of the answers, and last that of the perplexity."""
    return list(compare(fake, sample, fake.made, query_sample(fake)))


def test_the_reference_passes_its_own_check(made, few):
    *answers, _ = comparisons(FakeClient(made), few)
    assert len(answers) > 10
    assert all(c.passed for c in answers)


@dataclass(frozen=True)
class ServiceClient:
    """A client of a service in this process."""

    made: Any
    http: Any

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return self.http.post(path, json=body).raise_for_status().json()


def test_the_perplexity_of_texts_is_the_trainers(made):
    with serving(made.path.parent.parent) as http:
        *answers, perplexity = comparisons(ServiceClient(made, http), find_sample())
    assert perplexity.got == pytest.approx(perplexity.expected, rel=1e-5)
    assert all(c.passed for c in answers)


def test_the_network_is_better_than_counting():
    new, first = (
        json.loads((EXAMPLES / name / "training.json").read_text())
        for name in ("next_word", "state_of_the_union")
    )
    for part in ("test_perplexity", "heldout_sample_perplexity"):
        figures = new[part]
        assert figures["network"] < figures["network_last_20_words"] < figures["kneser_ney"]
        assert figures["kneser_ney"] < first[part]["bigram"]
        assert figures["bigram"] == pytest.approx(first[part]["bigram"], rel=1e-6)
        assert figures["network"] == pytest.approx(first[part]["network"], rel=0.01)


def test_each_question_has_an_answer_that_reads_well(made):
    answers = query_sample(FakeClient(made))
    assert [answer.text for answer in answers] == list(QUESTIONS)
    assert [answer.words[0] for answer in answers] == ["citizens", "union", "states"]


def swap_two_words(route, answer):
    if route == "top_k":
        words = answer["results"][1]["labels"]
        words[0], words[1] = words[1], words[0]
    return answer


def add_a_thousandth(route, answer):
    for name in ("probabilities", "log_probabilities"):
        if route == "probabilities" and name in answer:
            answer[name] = (np.array(answer[name]) * 1.001).tolist()
    return answer


@pytest.mark.parametrize("spoil", [swap_two_words, add_a_thousandth])
def test_a_wrong_answer_fails_the_check(made, few, spoil):
    *answers, _ = comparisons(FakeClient(made, spoil), few)
    assert not all(c.passed for c in answers)


def test_demo_check_passes_and_a_second_start_reuses_the_bundle(tmp_path):
    command = [sys.executable, "-m", "hsoftmax", "demo", "--check"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    for _ in range(2):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert "32 answers over HTTP equal the reference." in done.stdout
        assert f"held-out perplexity: {find_sample().perplexity:.3g}" in done.stdout
    assert os.listdir(Path(tmp_path, "hsoftmax/demo", SAMPLE_NAME)) == ["1"]


def test_the_commands_of_the_examples_page_make_the_same_bundle(made, tmp_path, monkeypatch):
    page = (EXAMPLES / "next_word" / "README.md").read_text("utf-8")
    command = page.split("\n    hsoftmax ")[1].replace("\\\n", "")
    *arguments, to = shlex.split(command)
    assert to == f"repository/{SAMPLE_NAME}"
    monkeypatch.chdir(EXAMPLES.parent)
    assert run([*arguments, str(tmp_path / to)]) == 0
    opened = bundle.open_bundle(tmp_path / to / "1")
    assert opened.manifest.files == made.manifest.files
    assert opened.manifest.source == made.manifest.source


def test_a_broken_bundle_is_exported_again(tmp_path):
    (tmp_path / SAMPLE_NAME / "1").mkdir(parents=True)
    (tmp_path / SAMPLE_NAME / "1" / "bundle.json").write_text("{}")
    assert export_sample(find_sample(), tmp_path).path == tmp_path / SAMPLE_NAME / "2"
