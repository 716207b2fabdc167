"""Which engine scores: what does not go together is refused, and what is missing is named."""

import pytest

from hsoftmax.cli import run
from tests.scoring.conftest import make_rows, write


@pytest.fixture
def refused(made, tmp_path, capsys):
    """The exit code and the one line of a call with these options."""

    def refused(*options):
        source = write(tmp_path / "in.ndjson", make_rows(3))
        output = tmp_path / "out.ndjson"
        task = ["--task", "target_log_prob"]
        code = run(["score", str(made), str(source), str(output), *task, *options])
        said = capsys.readouterr().err
        assert said.startswith("hsoftmax: ")
        assert said.count("\n") == 1
        assert not output.exists()
        return code, said

    return refused


def test_without_the_extra_one_line_names_it(refused, monkeypatch):
    monkeypatch.setattr("hsoftmax.commands.score.find_spec", lambda name: None)
    code, said = refused("--engine", "ray")
    assert code == 1
    assert "pip install '.[ray]'" in said


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--address", "10.0.0.1:6379"], "address: expected --engine ray beside it"),
        (["--engine", "ray", "--url", "http://127.0.0.1:1"], "url: expected no --engine ray"),
        (["--engine", "ray", "--address", "ray://10.0.0.1:10001"], "this machine is a node of"),
    ],
)
def test_what_does_not_go_together_is_refused(refused, monkeypatch, options, sentence):
    monkeypatch.setattr("hsoftmax.commands.score.find_spec", lambda name: name)
    code, said = refused(*options)
    assert code == 2
    assert sentence in said
