"""Tests that the examples of docs/http.md and docs/open-inference.md are correct."""

import json
import re
from pathlib import Path

import pytest

from hsoftmax.service.api.models import AccuracyDescription, CheckDescription, ModelDescription
from hsoftmax.service.api.openapi import error_codes
from hsoftmax.service.settings import Settings
from tests.service.conftest import TOLERANCE

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "http.md").read_text()
OPEN_INFERENCE = (DOCS / "open-inference.md").read_text()
EXAMPLE = re.compile(r"```http\nPOST (\S+)\n([^`]*)```\n```json\n([^`]*)```")
EXAMPLES = EXAMPLE.findall(PAGE) + EXAMPLE.findall(OPEN_INFERENCE)
PAGES = re.findall(r"```http\nGET (\S+)\n```\n```json\n([^`]*)```", PAGE)
STREAMS = re.findall(r"```http\nPOST (\S+)\n([^`]*)```\n```ndjson\n([^`]*)```", PAGE)


def same(got: object, expected: object) -> bool:
    if isinstance(expected, dict):
        return got.keys() == expected.keys() and all(
            same(got[key], expected[key]) for key in expected
        )
    if isinstance(expected, list):
        return len(got) == len(expected) and all(map(same, got, expected))
    if isinstance(expected, str):
        return expected in ("…", got)
    if expected is None:
        return got is None
    return got == pytest.approx(expected, rel=TOLERANCE)


def test_there_are_examples():
    assert len(EXAMPLE.findall(PAGE)) >= 7
    assert len(EXAMPLE.findall(OPEN_INFERENCE)) >= 4


@pytest.mark.parametrize(("url", "query", "response"), EXAMPLES)
def test_an_example_gives_the_printed_response(client, url, query, response):
    got = client.post(url, content=query).json()
    assert same(got, json.loads(response)), got


def test_there_is_a_page():
    assert PAGES


@pytest.mark.parametrize(("url", "response"), PAGES)
def test_a_page_is_as_printed(client, url, response):
    assert client.get(url).json() == json.loads(response)


def test_there_is_a_stream():
    assert STREAMS


@pytest.mark.parametrize(("url", "rows", "records"), STREAMS)
def test_a_stream_gives_the_printed_response(client, url, rows, records):
    got = client.post(url, content=rows).text.splitlines()
    for line, expected in zip(got, records.splitlines(), strict=True):
        assert same(json.loads(line), json.loads(expected)), line


def test_every_error_code_is_described():
    described = set(re.findall(r"`([a-z_]+)`", PAGE.split("## Errors")[1].split("## Headers")[0]))
    assert set(error_codes()) <= described


def test_every_field_of_a_model_is_described():
    described = PAGE.split("## Models")[1].split("## Labels")[0]
    fields = [
        *ModelDescription.model_fields,
        *AccuracyDescription.model_fields,
        *CheckDescription.model_fields,
    ]
    assert set(fields) <= set(re.findall(r"`([a-z0-9_]+)`", described))


def test_every_flag_that_is_named_is_a_setting():
    operations = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    flags = re.findall(r"`--(?:no-)?([a-z-]+)[` ]", PAGE + OPEN_INFERENCE + operations)
    assert {flag.replace("-", "_") for flag in flags} <= Settings.model_fields.keys()
    variables = re.findall(r"\bHSOFTMAX_([A-Z_]+)", PAGE + operations)
    assert {variable.lower() for variable in variables} <= Settings.model_fields.keys()
