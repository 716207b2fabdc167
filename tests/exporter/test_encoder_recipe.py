"""The recipe of docs/encoders.md, run as it is written: PyTorch's own answers over HTTP."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hsoftmax.cli import run
from tests.service.conftest import serving

pytestmark = pytest.mark.torch

PAGE = Path(__file__).parents[2] / "docs" / "encoders.md"
TOLERANCE = 1e-5
TOKENS = [[17, 4, 256], [8], [999] * 40, [1, 2, 3, 0], [1, 2]]
TEXTS = ["my fellow citizens compatriots", ["my", "fellow"]]
REFERENCE = """
import json, numpy
rows = json.load(open("rows.json"))
with torch.no_grad():
    states = torch.cat([model(torch.tensor([row]))[:, -1] for row in rows])
    each = torch.cat([model(torch.tensor([row]))[0] for row in rows])
    for name, rows in (("last", states), ("each", each)):
        numpy.save(f"{name}.npy", model.softmax.log_prob(rows).numpy())
"""


def blocks(language: str) -> list[str]:
    """The code of the page in this language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def run_python(code: str, folder: Path) -> None:
    """Run code in a process of its own: PyTorch warns, and tests turn warnings into errors."""
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=folder, check=True, timeout=250
    )


def commands(name: str) -> list[list[str]]:
    """The words of every `name ...` line in the shell code of the page."""
    lines = "\n".join(blocks("sh")).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.startswith(name)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The folder in which every Python block was run, with PyTorch's answers beside."""
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "rows.json").write_text(json.dumps(TOKENS))
    model, tokenizer = blocks("python")
    run_python(model + REFERENCE, folder)
    run_python(tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def client(folder):
    """Client of the bundles that the commands of the page make."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for _, *arguments in commands("hsoftmax export"):
            assert run(arguments) == 0
        changed = {"last": "each", "repository/words": "repository/each"}
        assert run([changed.get(word, word) for word in commands("hsoftmax export")[0][1:]]) == 0
    with serving(folder / "repository") as client:
        yield client


def log_probs(client, inputs, name: str = "words") -> np.ndarray:
    response = client.post(f"/v1/models/{name}/probabilities", json={"inputs": inputs, "log": True})
    assert response.status_code == 200, response.text
    return np.array(response.json()["log_probabilities"])


@pytest.mark.parametrize(("name", "position"), [("words", "last"), ("each", "each")])
def test_answers_from_ids_are_those_of_pytorch(client, folder, name, position):
    got = log_probs(client, {"tokens": TOKENS}, name)
    np.testing.assert_allclose(got, np.load(folder / f"{position}.npy"), atol=TOLERANCE)


def test_answers_from_text_are_those_of_pytorch(client, folder):
    got = log_probs(client, TEXTS)
    np.testing.assert_allclose(got, np.load(folder / "last.npy")[3:], atol=TOLERANCE)


def test_the_questions_of_the_page_are_answered(client):
    questions = commands("curl")
    assert len(questions) == 2
    for _, _, header, url, _, body in questions:
        headers = dict([header.split(": ")])
        path = url.removeprefix("localhost:8000")
        response = client.post(path, content=body, headers=headers)
        assert response.status_code == 200, response.text
        results = response.json()["results"]
        assert len(results) == len(rows_of(json.loads(body)["inputs"]))
        assert all(len(result["targets"]) == 5 for result in results)


def rows_of(inputs) -> list:
    return inputs["tokens"] if isinstance(inputs, dict) else inputs
