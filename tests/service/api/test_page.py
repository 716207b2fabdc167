"""Tests of the page's files: open, of the right type, cached by ETag, from this service alone."""

import re
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from hsoftmax.service.api.page import CONTENT_SECURITY_POLICY
from hsoftmax.service.page import FILE_TYPES, INDEX, PAGE_PATHS
from tests.service.conftest import expect_error, serving

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "service" / "page"
PATHS = sorted(PAGE_PATHS)


@pytest.fixture(scope="module")
def closed(repository):
    with serving(repository, api_keys="secret") as client:
        yield client


def type_of(path: str) -> str:
    return FILE_TYPES[INDEX if path == "/" else path.removeprefix("/page/")]


def test_every_file_of_the_folder_is_a_file_of_the_page():
    there = {path.name for path in FOLDER.iterdir() if path.suffix not in {".py", ""}}
    assert there == FILE_TYPES.keys()
    assert {"/", "/page/app.js", "/page/style.css", "/page/icon.svg"} <= PAGE_PATHS
    assert len(PAGE_PATHS) == len(there)


@pytest.mark.parametrize("path", PATHS)
def test_a_file_needs_no_key_and_has_its_type(closed, path):
    response = closed.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"].partition(";")[0] == type_of(path)
    assert response.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert response.headers["x-content-type-options"] == "nosniff"
    name = INDEX if path == "/" else path.rpartition("/")[2]
    assert response.content == (FOLDER / name).read_bytes()


def test_only_the_page_and_health_need_no_key(closed):
    others = ["/page", "/page/", "/page/index.html", "/page/__init__.py", "/page//app.js"]
    others += ["/page/app.js/", "/page/..%2fpage.py", "/docs", "/v1/models", "/metrics"]
    for path in others:
        expect_error(closed.get(path), 401, "unauthorized")


@pytest.mark.parametrize("name", ["index.html", "__init__.py", "nothing.js", "..%2fpublic.py"])
def test_nothing_else_is_a_file_of_the_page(client, name):
    expect_error(client.get(f"/page/{name}"), 404, "not_found")


def test_the_policy_allows_this_service_alone(client):
    policy = dict(part.split(" ", 1) for part in CONTENT_SECURITY_POLICY.split("; "))
    assert policy.pop("default-src") == "'self'"
    assert policy.pop("require-trusted-types-for") == "'script'"
    assert set(policy.values()) == {"'none'"}


@pytest.mark.parametrize("path", ["/", "/page/app.js"])
def test_a_file_that_the_client_has_is_not_sent_again(client, path):
    first = client.get(path)
    etag = first.headers["etag"]
    assert first.headers["cache-control"] == "no-cache"
    for known in (etag, etag.removeprefix("W/"), f'"other", {etag}', "*"):
        again = client.get(path, headers={"if-none-match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == etag
        assert again.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    for other in ('"other"', 'W/"other"', ""):
        again = client.get(path, headers={"if-none-match": other})
        assert (again.status_code, again.content) == (200, first.content)


def test_files_have_different_etags(client):
    assert len({client.get(path).headers["etag"] for path in PATHS}) == len(PATHS)


@pytest.mark.parametrize("name", FILE_TYPES)
def test_no_file_names_another_host(name):
    text = (FOLDER / name).read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.findall(r"(?:[a-z]+:)?//[\w.-]+\.\w+|\b(?:https?|wss?|ftp):", text)
    assert "innerHTML" not in text
    assert not re.search(r"\son\w+=|<script>|<style>|\sstyle=|@import|data:", text)


def test_every_file_is_used(client):
    """Each file is linked from the index, or imported by a script that is."""
    linked = set(re.findall(r'(?:src|href)="page/([^"]+)"', client.get("/").text))
    found: set[str] = set()
    while linked - found:
        name = (linked - found).pop()
        found.add(name)
        text = client.get(f"/page/{name}").text
        linked |= set(re.findall(r'^import .* from "\./([^"]+)";$', text, re.MULTILINE))
    assert found == FILE_TYPES.keys() - {INDEX}


def test_every_element_that_a_script_names_is_in_the_page():
    ids = set(re.findall(r'\bid="([^"]+)"', (FOLDER / INDEX).read_text("utf-8")))
    scripts = "".join(path.read_text("utf-8") for path in FOLDER.glob("*.js"))
    named = set(re.findall(r'byId\("([^"]+)"\)', scripts))
    assert len(named) > 20
    assert named <= ids


def test_the_wheel_has_every_file_of_the_page():
    builder = WheelBuilder(str(ROOT))
    packed = {file.distribution_path for file in builder.recurse_included_files()}
    assert packed >= {f"hsoftmax/service/page/{name}" for name in FILE_TYPES}
