"""The examples, settings and failure codes in docs/jobs.md are those of the service."""

import json
import re
from pathlib import Path

from hsoftmax.service.jobs import (
    blocking_graph_runner,
    completion,
    errors,
    execution,
    input_download,
    output_upload,
)
from hsoftmax.service.settings import Settings

PAGE = (Path(__file__).parents[3] / "docs" / "jobs.md").read_text("utf-8")


def code_blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


def matches(got: object, wanted: object) -> bool:
    if isinstance(wanted, dict):
        return got.keys() == wanted.keys() and all(matches(got[key], wanted[key]) for key in wanted)
    if isinstance(wanted, str) and "…" in wanted:
        return str(got).startswith(wanted.partition("…")[0])
    return got == wanted


def test_the_example_is_answered_as_printed(jobs):
    rows, output, errors = code_blocks("ndjson")
    (request,), (response,) = code_blocks("http"), code_blocks("json")
    file = jobs.upload(rows)["id"]
    line, query = request.split("\n", 1)
    created = jobs.http.post(line.split()[1], json={**json.loads(query), "input_file_id": file})
    batch = jobs.until(created.json()["id"])
    assert matches(batch, json.loads(response)), batch
    for field, wanted in (("output_file_id", output), ("error_file_id", errors)):
        pattern = r"[-\d.e]*".join(re.escape(part) for part in wanted.split("…"))
        got = jobs.content(batch[field]).decode()
        assert re.fullmatch(pattern, got), got


def test_the_requests_are_answered_as_printed(jobs):
    requests, responses = code_blocks("jsonl")
    file = jobs.upload(requests, "requests.jsonl")["id"]
    endpoint = json.loads(requests.splitlines()[0])["url"]
    batch = jobs.until(jobs.create(input_file_id=file, endpoint=endpoint)["id"])
    got = jobs.content(batch["output_file_id"]) + jobs.content(batch["error_file_id"])
    pattern = r".*".join(re.escape(part) for part in responses.split("…"))
    assert re.fullmatch(pattern, got.decode()), got


def test_every_described_setting_exists():
    flags = re.findall(r"`--([a-z-]+)`", PAGE.split("## Running it")[1])
    assert len(flags) >= 7
    assert {flag.replace("-", "_") for flag in flags} <= Settings.model_fields.keys()


def test_every_failure_code_is_described():
    described = set(re.findall(r"`([a-z_]+)`", PAGE.split("errors.data[].code")[1].split("##")[0]))
    modules = (
        execution, completion, blocking_graph_runner, errors, input_download, output_upload
    )  # fmt: skip
    text = "".join(Path(module.__file__).read_text() for module in modules)
    codes = set(re.findall(r'(?:Failure\(\s*|code=)"(\w+)"', text))
    assert len(codes) >= 7
    assert codes <= described
