"""The examples of docs/jobs.md are true, and so is what it says of settings and codes."""

import json
import re
from pathlib import Path

from hsoftmax.service.jobs import blocking_graph_runner, errors, execution
from hsoftmax.service.settings import Settings

PAGE = (Path(__file__).parents[3] / "docs" / "jobs.md").read_text("utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


def same(got: object, wanted: object) -> bool:
    if isinstance(wanted, dict):
        return got.keys() == wanted.keys() and all(same(got[key], wanted[key]) for key in wanted)
    if isinstance(wanted, str) and "…" in wanted:
        return str(got).startswith(wanted.partition("…")[0])
    return got == wanted


def test_the_example_is_answered_as_printed(jobs):
    rows, output, errors = blocks("ndjson")
    (asked,), (told,) = blocks("http"), blocks("json")
    file = jobs.upload(rows)["id"]
    line, query = asked.split("\n", 1)
    made = jobs.http.post(line.split()[1], json={**json.loads(query), "input_file_id": file})
    batch = jobs.until(made.json()["id"])
    assert same(batch, json.loads(told)), batch
    for field, wanted in (("output_file_id", output), ("error_file_id", errors)):
        pattern = r"[-\d.e]*".join(re.escape(part) for part in wanted.split("…"))
        got = jobs.content(batch[field]).decode()
        assert re.fullmatch(pattern, got), got


def test_every_setting_is_there():
    flags = re.findall(r"`--([a-z-]+)`", PAGE.split("## Running it")[1])
    assert len(flags) >= 7
    assert {flag.replace("-", "_") for flag in flags} <= Settings.model_fields.keys()


def test_every_code_of_a_failure_is_described():
    described = set(re.findall(r"`([a-z_]+)`", PAGE.split("errors.data[].code")[1].split("##")[0]))
    text = "".join(
        Path(module.__file__).read_text() for module in (execution, blocking_graph_runner, errors)
    )
    codes = set(re.findall(r'(?:Failure\(\s*|code=)"(\w+)"', text))
    assert len(codes) >= 7
    assert codes <= described
