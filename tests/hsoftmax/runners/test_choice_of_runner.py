"""The choice of the engine: conflicting options and missing packages are errors."""

import pytest

from hsoftmax.cli import run
from tests.scoring.conftest import make_rows, write


@pytest.fixture
def refused(made, tmp_path, capsys):
    """Returns a function that makes a call and returns (exit code, its one-line error)."""

    def refused(*options):
        source = write(tmp_path / "in.ndjson", make_rows(3))
        output = tmp_path / "out.ndjson"
        task = ["--task", "target_log_prob"]
        code = run(["score", str(made), str(source), str(output), *task, *options])
        error = capsys.readouterr().err
        assert error.startswith("hsoftmax: ")
        assert error.count("\n") == 1
        assert not output.exists()
        return code, error

    return refused


def test_without_the_ray_extra_the_error_names_it(refused, monkeypatch):
    monkeypatch.setattr("hsoftmax.commands.score.find_spec", lambda name: None)
    code, error = refused("--engine", "ray")
    assert code == 1
    assert "pip install '.[ray]'" in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--address", "10.0.0.1:6379"], "address: expected --engine ray beside it"),
        (["--engine", "ray", "--url", "http://127.0.0.1:1"], "url: expected no --engine ray"),
        (["--engine", "ray", "--address", "ray://10.0.0.1:10001"], "this machine is a node of"),
    ],
)
def test_conflicting_options_are_refused(refused, monkeypatch, options, message):
    monkeypatch.setattr("hsoftmax.commands.score.find_spec", lambda name: name)
    code, error = refused(*options)
    assert code == 2
    assert message in error
