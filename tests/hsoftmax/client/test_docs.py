"""Runs the programs of docs/python.md, one after another, and compares what they print."""

import contextlib
import io
import re
from pathlib import Path

from tests.hsoftmax.client.conftest import KEY

PAGE = (Path(__file__).parents[3] / "docs" / "python.md").read_text("utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```(?:\n```text\n(.*?)```)?", PAGE, flags=re.DOTALL)


def test_the_programs_print_the_output_on_the_page(process, repository, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "repository").symlink_to(repository)
    names: dict = {}
    assert len(PROGRAMS) == PAGE.count("```python") >= 8
    for program, shown in PROGRAMS:
        assert shown, program
        address = f'"http://{process.address}", api_key="{KEY}"'
        program = program.replace('"http://127.0.0.1:8000"', address)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(program, "docs/python.md", "exec"), names)
        pattern = ".*?".join(re.escape(part) for part in shown.split("…"))
        assert re.fullmatch(pattern, printed.getvalue()), printed.getvalue()


def test_every_method_is_on_the_page():
    from hsoftmax.client import Client, Jobs, RemoteModel

    for owner in (RemoteModel, Client, Jobs):
        for name in vars(owner):
            if not name.startswith("_") and name not in ("send", "get", "post", "cancel"):
                assert re.search(rf"\b{name}\b", PAGE), (owner, name)
