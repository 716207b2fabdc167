"""Files: size limits of uploads, names, ranges, and deletion."""

import errno
import gzip
import os
from pathlib import Path

import pytest

from hsoftmax.service.errors import InvalidQuery
from hsoftmax.service.jobs.retention import sweep
from hsoftmax.service.jobs.state_dir import StateDir
from hsoftmax.service.jobs.upload_parser import safe_name
from tests.service.conftest import expect_error, serving

from .conftest import JobsClient, make_rows, ndjson, opened_database, serving_jobs, state_settings
from .test_batches import encode_rows

ROWS = ndjson(make_rows(3))


def test_a_file_is_returned_unchanged(jobs):
    file = jobs.upload(ROWS)
    assert file == jobs.http.get(f"/v1/files/{file['id']}").json()
    assert {k: file[k] for k in ("object", "bytes", "filename", "purpose", "status")} == {
        "object": "file",
        "bytes": len(ROWS),
        "filename": "rows.ndjson",
        "purpose": "batch",
        "status": "processed",
    }
    assert jobs.content(file["id"]) == ROWS.encode()
    assert file["expires_at"] > file["created_at"]
    deleted = jobs.http.delete(f"/v1/files/{file['id']}").json()
    assert deleted == {"id": file["id"], "object": "file", "deleted": True}
    for url in (f"/v1/files/{file['id']}", f"/v1/files/{file['id']}/content"):
        expect_error(jobs.http.get(url), 404, "unknown_file")
    expect_error(jobs.http.delete(f"/v1/files/{file['id']}"), 404, "unknown_file")
    assert not list(jobs.state.glob(f"*/{file['id']}*"))


def test_a_range_of_a_file_is_returned(jobs):
    url = f"/v1/files/{jobs.upload(ROWS)['id']}/content"
    response = jobs.http.get(url, headers={"range": "bytes=3-9"})
    assert (response.status_code, response.text) == (206, ROWS[3:10])


@pytest.mark.parametrize(
    "range_header", ["bytes=9999999-", "lines=1-2", "bytes=", "bytes=5-1", "all"]
)
def test_an_unsatisfiable_range_is_an_error(jobs, range_header):
    url = f"/v1/files/{jobs.upload(ROWS)['id']}/content"
    response = jobs.http.get(url, headers={"range": range_header})
    sentence = (
        f"range: expected bytes=FIRST-LAST within its {len(ROWS)} bytes, got {range_header!r}"
    )
    expect_error(response, 416, "range_not_satisfiable", sentence)
    assert response.headers["content-range"] == f"bytes */{len(ROWS)}"


def test_a_large_file_comes_through_whole(jobs):
    content = os.urandom(5 * 2**20)
    assert jobs.content(jobs.upload(content, "a.npy")["id"]) == content


def test_files_are_listed_page_by_page(repository, tmp_path):
    with serving_jobs(repository, tmp_path) as jobs:
        ids = [jobs.upload(ROWS)["id"] for _ in range(5)]
        first = jobs.http.get("/v1/files?limit=2").json()
        assert [file["id"] for file in first["data"]] == ids[:-3:-1]
        assert (first["has_more"], first["last_id"]) == (True, ids[3])
        rest = jobs.http.get(f"/v1/files?limit=3&after={ids[3]}").json()
        assert [file["id"] for file in rest["data"]] == ids[2::-1]
        assert not rest["has_more"]
        oldest = jobs.http.get("/v1/files?order=asc&limit=1").json()
        assert oldest["data"][0]["id"] == ids[0]
        assert jobs.http.get("/v1/files?purpose=batch_output").json()["data"] == []
        expect_error(jobs.http.get("/v1/files?after=nonesuch"), 422, "invalid_query", "after")


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../etc/rows.csv", "rows.csv"),
        ("C:\\data\\rows.CSV", "rows.csv"),
        ("a\0\n b.ndjson", "a b.ndjson"),
        ("é" * 500 + ".npy", "é" * 200 + ".npy"),
    ],
)
def test_a_name_is_never_a_path(name, kept):
    assert safe_name(name) == kept


@pytest.mark.parametrize("name", ["", "rows.exe", ".ndjson", "rows.ndjson/..", "a.ndjson.gz"])
def test_a_name_with_an_unknown_extension_is_refused(name):
    with pytest.raises(InvalidQuery, match="expected a name ending in"):
        safe_name(name)


def test_the_format_of_a_name_without_an_extension_is_in_the_content(jobs):
    """OpenAI's clients call bytes `upload` or `unknown_file`."""
    rows = make_rows(4)
    for content in (ndjson(rows), *(encode_rows(rows, one) for one in ("parquet", "arrow", "npy"))):
        file = jobs.upload(content, "upload")
        assert file["filename"] == "upload"
        batch = jobs.until(jobs.create(input_file_id=file["id"], task="top_k", k=2)["id"])
        assert batch["request_counts"] == {"total": 4, "completed": 4, "failed": 0}, batch


def upload_until(jobs, **fields: str):
    data = {"purpose": "batch", **{f"expires_after[{name}]": v for name, v in fields.items()}}
    return jobs.http.post("/v1/files", files={"file": ("a.csv", b"x")}, data=data)


def test_a_file_expires_when_its_client_says(jobs):
    file = upload_until(jobs, anchor="created_at", seconds="3600").json()
    assert file["expires_at"] == file["created_at"] + 3600
    assert jobs.http.get(f"/v1/files/{file['id']}").json() == file


@pytest.mark.parametrize(
    ("fields", "sentence", "param"),
    [
        ({"anchor": "now", "seconds": "3600"}, "expected 'created_at', got 'now'", "anchor"),
        ({"seconds": "3600"}, "expected a value, got none", "anchor"),
        ({"anchor": "created_at"}, "expected a value, got none", "seconds"),
        *(({"anchor": "created_at", "seconds": one}, f"expected 3600 to 2592000, got {one}",
           "seconds") for one in ("0", "3599", "2592001")),
        *(({"anchor": "created_at", "seconds": one}, "expected an integer", "seconds")
          for one in ("", "1e4", "-3600", "٣٦٠٠", "9" * 30)),
    ],
)  # fmt: skip
def test_a_time_that_no_file_can_expire_is_refused(jobs, fields, sentence, param):
    refused = upload_until(jobs, **fields)
    expect_error(refused, 422, "invalid_query", sentence)
    assert refused.json()["error"]["param"] == f"expires_after.{param}"


def test_a_file_is_removed_when_it_expires(repository, tmp_path):
    with serving_jobs(repository, tmp_path) as jobs:
        file = upload_until(jobs, anchor="created_at", seconds="3600").json()
        kept = jobs.upload(ROWS)
        used = jobs.start(make_rows(3))
        jobs.until(used["id"])
        with opened_database(tmp_path) as database:
            ids = [file["id"], kept["id"]]
            with database.transaction() as db:
                db.execute("UPDATE files SET expires_at = 1 WHERE id = :id", {"id": file["id"]})
            sweep(database, StateDir(tmp_path), 1e6)
        answers = [jobs.http.get(f"/v1/files/{id}").status_code for id in ids]
        assert answers == [404, 200]
        assert not list(tmp_path.glob(f"files/{file['id']}*"))


def test_errors_have_the_shape_that_openais_clients_read(jobs):
    response = jobs.http.get("/v1/files/none", headers={"x-request-id": "r1"})
    message = "file 'none': expected one that is here, got none of that id"
    error = {"message": message, "type": "invalid_request_error", "param": None,
             "code": "unknown_file"}  # fmt: skip
    assert response.json() == {"error": error, "request_id": "r1"}
    assert "x-should-retry" not in response.headers
    for path in ("/v1/files/a/b", "/v1/batches/a/b/c"):
        expect_error(jobs.http.get(path), 404, "not_found")
    response = jobs.http.get("/v1/files?limit=0")
    expect_error(response, 422, "invalid_query", "limit")
    assert response.json()["error"]["param"] == "limit"
    response = jobs.http.post("/v1/batches", json={"endpoint": "/v1/x", "task": "x", "Task": "x"})
    assert response.json()["error"]["param"] == "Task"
    assert response.headers["x-request-id"] == response.json()["request_id"]
    # All other routes have the service's own shape.
    assert isinstance(jobs.http.get("/v1/models/none").json()["error"], str)
    assert isinstance(jobs.http.get("/v1/filesystem").json()["error"], str)


@pytest.mark.parametrize(
    ("request_", "status", "code", "sentence"),
    [
        ({"files": {"file": ("a.exe", b"")}, "data": {"purpose": "batch"}}, 422, "invalid_query",
         "expected a name ending in"),
        ({"files": {"file": ("a.csv", b"")}, "data": {"purpose": "fine-tune"}}, 422,
         "invalid_query", "purpose: expected 'batch', got 'fine-tune'"),
        ({"files": {"file": ("a.csv", b"")}}, 422, "invalid_query", "got none"),
        ({"files": {"other": ("a.csv", b"")}}, 422, "invalid_query", "got 'other'"),
        ({"files": [("file", ("a.csv", b"")), ("file", ("b.csv", b""))]}, 422, "invalid_query",
         "expected one, got several"),
        ({"data": {"purpose": "b" * 2000}, "files": {"file": ("a.csv", b"")}}, 413, "too_large",
         "purpose"),
        ({"json": {"purpose": "batch"}}, 415, "unsupported_media_type", "multipart/form-data"),
        ({"content": b"--x\r\nnonsense", "headers": {"content-type":
          "multipart/form-data; boundary=x"}}, 400, "unreadable_body", ""),
        ({"content": b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n'
          b"\r\nhalf\r\n--x--", "headers": {"content-type": "multipart/form-data; boundary=x"}},
         422, "invalid_query", "purpose: expected 'batch', got none"),
    ],
)  # fmt: skip
def test_an_invalid_upload_is_refused_and_leaves_no_file(jobs, request_, status, code, sentence):
    before = sorted(jobs.state.glob("*/*"))
    expect_error(jobs.http.post("/v1/files", **request_), status, code, sentence)
    assert sorted(jobs.state.glob("*/*")) == before


def test_a_body_that_ends_too_early_is_refused(jobs):
    body = (
        b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\nhalf'
    )
    headers = {"content-type": "multipart/form-data; boundary=x"}
    response = jobs.http.post("/v1/files", content=body, headers=headers)
    expect_error(response, 400, "unreadable_body", "closing boundary")


@pytest.mark.parametrize("route", ["files", "batches"])
def test_a_disconnect_is_not_an_internal_error_and_leaves_no_file(repository, tmp_path, route):
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'
    messages = iter([
        {"type": "http.request", "body": part + b"x" * 2**20, "more_body": True},
        {"type": "http.disconnect"},
    ])  # fmt: skip
    kind = {"files": b"multipart/form-data; boundary=b", "batches": b"application/json"}[route]

    async def receive():
        return next(messages)

    async def send(message):
        pass

    with serving_jobs(repository, tmp_path) as jobs:
        scope = {"type": "http", "method": "POST", "path": f"/v1/{route}", "query_string": b"",
                 "headers": [(b"content-type", kind)], "http_version": "1.1"}  # fmt: skip
        jobs.http.portal.call(jobs.http.app, scope, receive, send)
        assert not list(tmp_path.glob("uploads/*"))
        counted = jobs.http.get("/metrics").text
    assert f'code="client_left",model="",route="/v1/{route}",status="499"' in counted
    assert 'code="internal"' not in counted


def test_a_file_beyond_the_limit_is_refused_with_or_without_content_length(repository, tmp_path):
    with serving_jobs(repository, tmp_path, max_file_bytes=1000) as jobs:
        jobs.upload(b"x" * 1000, "a.csv")
        for size in (1001, 200_000):
            assert jobs.upload(b"x" * size, "a.csv", expect=413)["error"]["code"] == "too_large"
        head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'
        endless = jobs.http.post(
            "/v1/files",
            content=iter([head, *[b"x" * 10_000] * 50]),
            headers={"content-type": "multipart/form-data; boundary=x"},
        )
        expect_error(endless, 413, "too_large", "expected at most")
        assert not list((tmp_path / "uploads").iterdir())


def test_all_files_together_are_bounded(repository, tmp_path):
    with serving_jobs(repository, tmp_path, max_files_bytes=2500) as jobs:
        first = jobs.upload(b"x" * 1500, "a.csv")
        full = jobs.upload(b"x" * 1500, "a.csv", expect=507)
        assert full["error"]["code"] == "storage_full"
        jobs.http.delete(f"/v1/files/{first['id']}")
        jobs.upload(b"x" * 1500, "a.csv")


def test_a_full_disk_is_reported(jobs, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("hsoftmax.service.jobs.upload_parser.os.fsync", full)
        assert jobs.upload(ROWS, expect=507)["error"]["code"] == "storage_full"
    assert not list((jobs.state / "uploads").iterdir())
    jobs.upload(ROWS)


def test_a_disk_that_is_full_at_close_is_reported(jobs, monkeypatch):
    """The buffered bytes fail a second time when the file is closed."""

    def device(path: Path, mode: str):
        path.touch()
        return open("/dev/full", "wb")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", device)
        assert jobs.upload(ROWS, expect=507)["error"]["code"] == "storage_full"
    assert not list((jobs.state / "uploads").iterdir())


def test_a_compressed_upload_is_refused(jobs):
    bomb = gzip.compress(bytes(2**20))
    headers = {"content-type": "multipart/form-data; boundary=x", "content-encoding": "gzip"}
    response = jobs.http.post("/v1/files", content=bomb, headers=headers)
    expect_error(
        response, 415, "unsupported_media_type", "content-encoding: expected a file as it is"
    )


def test_a_file_that_a_job_reads_cannot_be_deleted(jobs, valve):
    valve.passing = 0
    batch = jobs.start(make_rows(30))
    file = batch["input_file_id"]
    expect_error(jobs.http.delete(f"/v1/files/{file}"), 409, "file_in_use", batch["id"])
    valve.open()
    assert jobs.until(batch["id"])["status"] == "completed"
    assert jobs.http.delete(f"/v1/files/{file}").status_code == 200


def test_without_a_state_folder_there_are_no_jobs_and_all_else_is_served(
    repository, tmp_path, capfd
):
    (tmp_path / "file").write_text("")
    with serving(repository, **state_settings(tmp_path / "file" / "state")) as http:
        client = JobsClient(http, tmp_path)
        for _ in range(2):
            assert client.upload(ROWS, expect=503)["error"]["code"] == "jobs_unavailable"
        expect_error(http.get("/v1/batches"), 503, "jobs_unavailable", "expected a state folder")
        assert http.get("/healthz/ready").status_code == 200
    assert capfd.readouterr().err.count('"event":"jobs_unavailable"') == 1


def test_the_state_folder_is_created_on_first_use(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with serving(repository) as http:
        assert not list(tmp_path.iterdir())
        JobsClient(http, tmp_path).upload(ROWS)
    (state,) = (tmp_path / "hsoftmax").iterdir()
    assert state.stat().st_mode & 0o077 == 0


def test_files_and_batches_need_an_api_key(repository, tmp_path):
    with serving_jobs(repository, tmp_path, api_keys="secret") as jobs:
        for url in ("/v1/files", "/v1/batches"):
            expect_error(jobs.http.get(url), 401, "unauthorized")
            ok = jobs.http.get(url, headers={"authorization": "Bearer secret"})
            assert ok.status_code == 200
