"""The demonstration over HTTP, and its check, which must fail for a wrong answer."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hsoftmax import models
from hsoftmax.demo.queries import Comparison, compare, query_sample
from hsoftmax.demo.sample_model import SAMPLE_NAME, export_sample, find_sample
from tests.service.conftest import serving


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return export_sample(find_sample(), tmp_path_factory.mktemp("repository"))


def unchanged(route, answer):
    return answer


@dataclass(frozen=True)
class FakeClient:
    """A client whose answers are the reference's, changed by `spoil`."""

    made: Any
    spoil: Callable[[str, Any], Any] = unchanged

    def post(self, path: str, body: dict[str, Any]) -> Any:
        from hsoftmax import bundle

        manifest = self.made.manifest
        model = models.from_tensors(
            manifest.family, bundle.load_tensors(self.made), manifest.attributes
        )
        hidden = np.array(body["inputs"], dtype=np.float32)
        full = models.reference(model).log_probs(model, hidden)
        route = path.rsplit("/", 1)[1]
        return self.spoil(route, self.answer(route, full, body, bundle.read_labels(self.made)))

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
        targets = [labels.index(t) if isinstance(t, str) else t for t in body["targets"]]
        picked = full[np.arange(len(targets)), targets]
        return {"log_probabilities" if body.get("log") else "probabilities":
                (picked if body.get("log") else np.exp(picked)).tolist()}  # fmt: skip


def comparisons(fake: Any) -> list[Comparison]:
    sample = find_sample()
    return list(compare(fake, sample, fake.made, query_sample(fake, sample, fake.made)))


def test_the_reference_passes_its_own_check(made):
    assert all(c.passed for c in comparisons(FakeClient(made)))


@dataclass(frozen=True)
class ServiceClient:
    """A client of a service in this process."""

    made: Any
    http: Any

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return self.http.post(path, json=body).raise_for_status().json()


@pytest.mark.parametrize("native", ["on", "off"])
def test_the_perplexity_is_the_trainers_with_native_kernels_and_with_graphs(made, native):
    with serving(made.path.parent.parent, native=native) as http:
        found = {c.name: c for c in comparisons(ServiceClient(made, http))}
    perplexity = found["held-out perplexity"]
    assert perplexity.got == pytest.approx(75.3877, abs=1e-4)
    assert perplexity.got == pytest.approx(perplexity.expected, abs=1e-4)
    assert all(c.passed for c in found.values())


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
def test_a_wrong_answer_fails_the_check(made, spoil):
    assert not all(c.passed for c in comparisons(FakeClient(made, spoil)))


def test_demo_check_passes_and_a_second_start_reuses_the_bundle(tmp_path):
    command = [sys.executable, "-m", "hsoftmax", "demo", "--check"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    for _ in range(2):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert "35 answers over HTTP equal the NumPy reference." in done.stdout
        assert "held-out perplexity: 75.38" in done.stdout
    assert os.listdir(Path(tmp_path, "hsoftmax/demo/state_of_the_union")) == ["1"]


def test_a_broken_bundle_is_exported_again(tmp_path):
    (tmp_path / SAMPLE_NAME / "1").mkdir(parents=True)
    (tmp_path / SAMPLE_NAME / "1" / "bundle.json").write_text("{}")
    assert export_sample(find_sample(), tmp_path).path == tmp_path / SAMPLE_NAME / "2"
