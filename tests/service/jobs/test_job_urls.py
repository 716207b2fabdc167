"""Jobs that read and write objects of a store, here one of folders with the library's own rules."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from obstore.store import LocalStore

from hsoftmax.cli import run
from hsoftmax.service import Settings, create_app
from hsoftmax.service.errors import Forbidden, InvalidQuery, StartError
from hsoftmax.service.jobs import store_retries
from hsoftmax.service.jobs.job_urls import parse_job_url
from hsoftmax.stores import objects
from hsoftmax.stores.errors import StoreError, StoreUnavailable
from hsoftmax.stores.url import StoreUrl, parse_url
from tests.service.conftest import expect_error

from .conftest import SCORE, JobsClient, make_rows, ndjson, serving_jobs

ALLOWED = (parse_url("s3://bucket/in"), parse_url("s3://bucket/out"))
PARTS = st.sampled_from(["in", "inn", "a", "..", ".", "%2e%2e", "b%2fc", "x.csv", ""])
PATHS = st.lists(PARTS, max_size=5).map("/".join)
PREFIXES = ["s3://bucket/", "s3://bucket", "s3://other/", "gs://bucket/", "s3://k:SECRET@bucket/",
            "file:///", "http://127.0.0.1/", "https://bucket/"]  # fmt: skip


@given(st.sampled_from(PREFIXES), PATHS, st.sampled_from(["", "?versionId=1", "#x"]))
def test_only_plain_addresses_below_an_entry_are_taken(prefix, path, end):
    text = f"{prefix}{path}{end}"
    first, *rest = path.split("/")
    plain = all(part not in ("", ".", "..") and "%" not in part for part in rest)
    inside = prefix == "s3://bucket/" and first == "in" and plain and not end
    for param in ("input_url", "output_url"):
        if inside:
            assert str(parse_job_url(param, text, ALLOWED)) == text
            continue
        with pytest.raises((Forbidden, InvalidQuery)) as caught:
            parse_job_url(param, text, ALLOWED)
        assert str(caught.value).startswith(f"{param}: expected ")
        assert "SECRET" not in str(caught.value)


def test_a_wrong_setting_is_one_line_at_the_start(tmp_path, monkeypatch, capsys):
    for urls, sentence in [("s3://k:SECRET@bucket", "environment"), ("file:///srv", "got file://")]:
        assert run(["serve", str(tmp_path), "--job-urls", urls]) == 2
        error = capsys.readouterr().err
        assert "job_urls: " in error
        assert sentence in error
        assert "SECRET" not in error
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.delitem(sys.modules, "hsoftmax.stores.objects")
    with pytest.raises(StartError, match=r"package obstore, got none: pip install 'hsoftmax\[stor"):
        create_app(Settings(repository=tmp_path, job_urls="s3://bucket"))


class Bucket:
    """The folder of a bucket, which every address of a store leads to; or the error of a store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.error: Exception | None = None

    def open(self, url: StoreUrl, *_: object) -> LocalStore:
        if self.error is not None:
            raise self.error
        return LocalStore(self.folder / url.place / url.path, mkdir=True)

    def path(self, url: str) -> Path:
        path = self.folder / url.removeprefix("s3://")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def put(self, url: str, content: str) -> str:
        self.path(url).write_text(content)
        return url


@pytest.fixture
def bucket(tmp_path, monkeypatch) -> Bucket:
    bucket = Bucket(tmp_path / "stores")
    monkeypatch.setattr(objects, "_open", bucket.open)
    return bucket


@pytest.fixture(scope="module")
def urls(repository, tmp_path_factory) -> Iterator[JobsClient]:
    with serving_jobs(
        repository,
        tmp_path_factory.mktemp("state"),
        job_urls="s3://bucket/in, s3://bucket/out",
        max_file_bytes=20_000,
    ) as client:
        yield client


def create_refused(jobs: JobsClient, **query: object):
    return jobs.http.post("/v1/batches", json={"endpoint": SCORE, **query})


def test_addresses_that_cannot_be_are_refused_at_once(jobs, urls, bucket):
    good = bucket.put("s3://bucket/in/rows.ndjson", ndjson(make_rows(3)))
    large = bucket.put("s3://bucket/in/large.ndjson", "x" * 20_001)
    file = urls.upload(ndjson(make_rows(3)))["id"]
    cases: list[tuple[dict, int, str, str]] = [
        ({"input_url": "s3://bucket/private/rows.ndjson"}, 403, "forbidden", "of --job-urls, got"),
        ({"input_url": "file:///etc/passwd"}, 422, "invalid_query", "got file://"),
        ({"input_url": "http://bucket/in/rows.ndjson"}, 422, "invalid_query", "got http://"),
        ({"input_url": "s3://a:SECRET@bucket/in/rows.csv"}, 422, "invalid_query", "environment"),
        ({"input_url": "s3://bucket/in/rows.xlsx"}, 422, "invalid_query", "a name ending in"),
        ({"input_url": "s3://bucket/in/none.csv"}, 404, "unknown_file", "got none"),
        ({"input_url": large}, 413, "too_large", "at most 20000 bytes, got 20001"),
        ({"input_url": good, "output_url": good}, 422, "invalid_query", "than input_url, got s3"),
        ({"input_url": good, "input_file_id": file}, 422, "invalid_query", "and input_url"),
        ({"input_file_id": file, "output_url": "https://bucket/o"}, 422, "invalid_query", "https:"),
        ({"input_file_id": file, "output_url": "s3://bucket/outer/a"}, 403, "forbidden", "got s3://"),
    ]  # fmt: skip
    for query, status, code, sentence in cases:
        expect_error(create_refused(urls, **query), status, code, sentence)
    expect_error(create_refused(jobs, input_url=good), 403, "forbidden", "no --job-urls")
    for raised, status, code in [
        (StoreUnavailable("SECRET"), 503, "store_unavailable"),
        (StoreError("SECRET"), 422, "invalid_query"),
    ]:
        bucket.error = raised
        response = create_refused(urls, input_url=good)
        expect_error(response, status, code, "input_url: expected")
        assert "SECRET" not in response.text


def test_a_job_from_store_to_store_has_the_records_of_an_upload(urls, bucket):
    rows = make_rows(40)
    rows[7]["target"] = -1
    url = bucket.put("s3://bucket/in/rows.ndjson", ndjson(rows))
    wanted = urls.content(urls.run(rows)["output_file_id"])
    batch = urls.until(urls.create(input_url=url, output_url="s3://bucket/out/a.ndjson")["id"])
    assert batch["status"] == "completed", batch
    assert (batch["input_url"], batch["input_file_id"]) == (url, None)
    assert batch["output_url"] == "s3://bucket/out/a.ndjson"
    assert urls.content(batch["output_file_id"]) == wanted
    assert bucket.path(batch["output_url"]).read_bytes() == wanted
    assert len(urls.errors(batch)) == 1
    for name, content, status in [
        ("a", wanted.decode(), "completed"), ("b", "another", "failed"), ("c", None, "completed")
    ]:  # fmt: skip
        to = f"s3://bucket/out/{name}.ndjson"
        if content is not None:
            bucket.put(to, content)
        batch = urls.until(urls.create(input_url=url, output_url=to)["id"])
        assert batch["status"] == status, batch
        assert bucket.path(to).read_text() == (content or wanted.decode())
        assert urls.content(batch["output_file_id"]) == wanted
        if status == "failed":
            (error,) = batch["errors"]["data"]
            assert (error["code"], error["param"]) == ("output_exists", "output_url")


def test_a_job_that_cannot_read_its_object_fails_with_one_sentence(
    repository, tmp_path, bucket, monkeypatch, valve
):
    """They wait behind a job that the valve holds, while their objects change."""
    monkeypatch.setattr(store_retries, "_MAX_OUTAGE_S", 0)
    settings = {"job_urls": "s3://bucket", "max_files_bytes": 6_000}
    with serving_jobs(repository, tmp_path / "state", **settings) as jobs:
        valve.passing = 0
        first = jobs.start(make_rows(2))["id"]
        content = ndjson(make_rows(12))
        changes: dict[str, tuple[Callable[[Path], object], str]] = {
            "changed": (lambda path: path.write_text(content.replace("r1", "r9")), "input_changed"),
            "gone": (Path.unlink, "input_gone"),
            "broken": (lambda path: None, "invalid_input"),
            "full": (lambda path: None, "disk_full"),
        }
        ids = {}
        for name in changes:
            text = "{" if name == "broken" else content * (1 + (name == "full"))
            url = bucket.put(f"s3://bucket/{name}.csv" if name == "broken" else
                             f"s3://bucket/{name}.ndjson", text)  # fmt: skip
            to = f"s3://bucket/out/{name}"
            ids[name] = jobs.create(input_url=url, output_url=to)["id"]
            expect_error(create_refused(jobs, input_url=url, output_url=to), 422, "invalid_query",
                         "to which another active job writes")  # fmt: skip
        jobs.upload("x" * 2000)
        for name, (change, _) in changes.items():
            change(next(bucket.folder.glob(f"bucket/{name}.*")))
        valve.open()
        assert jobs.until(first)["status"] == "completed"
        for name, (_, code) in changes.items():
            batch = jobs.until(ids[name])
            assert batch["status"] == "failed"
            assert batch["output_file_id"] is None
            (error,) = batch["errors"]["data"]
            assert error["code"] == code, (name, error)
            assert error["message"].count(": expected") >= 1
        assert not list((tmp_path / "state" / "uploads").iterdir())
        assert len(list((tmp_path / "state" / "files").iterdir())) == 2
