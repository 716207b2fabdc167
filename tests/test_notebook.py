"""Runs the code of the notebook cell by cell, without Jupyter."""

import json
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOK = EXAMPLES / "python.ipynb"


def read_cells() -> list[dict]:
    return json.loads(NOTEBOOK.read_text("utf-8"))["cells"]


def test_the_notebook_has_no_results_of_a_run():
    notebook = json.loads(NOTEBOOK.read_text("utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    cells = notebook["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells) > 10
    for cell in cells:
        expected = {"cell_type", "id", "metadata", "source"}
        if cell["cell_type"] == "code":
            expected |= {"execution_count", "outputs"}
            assert cell["execution_count"] is None
            assert cell["outputs"] == []
        assert set(cell) == expected
        assert cell["metadata"] == {}
        lines = cell["source"]
        assert all(line.endswith("\n") for line in lines[:-1])
        assert not lines[-1].endswith("\n")


@pytest.fixture
def names(monkeypatch, tmp_path):
    """The names that the cells defined, after all of them ran in the folder of the examples."""
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    names: dict = {"__name__": "__main__"}
    try:
        for cell in read_cells():
            if cell["cell_type"] == "code":
                exec(compile("".join(cell["source"]), f"cell {cell['id']}", "exec"), names)
        yield names
    finally:
        if "server" in names:
            names["server"].kill()
            names["server"].wait()
        if "client" in names:
            names["client"].close()


def test_every_cell_runs_and_the_figures_are_those_of_the_training(names):
    training = json.loads((EXAMPLES / "state_of_the_union" / "training.json").read_text())
    assert names["perplexity"] == pytest.approx(training["heldout_perplexity"], rel=1e-3)
    assert names["distribution"].sum() == pytest.approx(1, abs=1e-4)
    assert len(names["records"]) == 2000
    assert names["server"].returncode is not None
    assert names["answers"][0][0].labels == names["model"].top_k(names["hidden"][:1], 1)[0].labels
