"""A key sees its own files and jobs, and those without an owner."""

import json

import pytest

from tests.service.conftest import expect_error

from .conftest import SCORE, make_rows, ndjson, opened_database, serving_jobs

LINES = [
    json.dumps({"name": name, "key": f"secret-of-{name}", "scopes": ["read", "batch"]})
    for name in ("ann", "bob")
]


def as_key(jobs, name: str):
    jobs.http.headers["authorization"] = f"Bearer secret-of-{name}"
    return jobs


@pytest.fixture
def keys_file(tmp_path):
    path = tmp_path / "keys"
    path.write_text("\n".join(LINES))
    return path


def test_a_key_sees_its_own_files_and_jobs(repository, tmp_path, keys_file):
    state = tmp_path / "state"
    with serving_jobs(repository, state) as jobs:
        before = jobs.run(make_rows(3))
    with serving_jobs(repository, state, api_keys_file=keys_file) as jobs:
        as_key(jobs, "ann")
        file = jobs.upload(ndjson(make_rows(3)))["id"]
        batch = jobs.until(jobs.create(key="once", input_file_id=file)["id"])
        output = batch["output_file_id"]
        as_key(jobs, "bob")
        for id in (file, output):
            for url in (f"/v1/files/{id}", f"/v1/files/{id}/content"):
                expect_error(jobs.http.get(url), 404, "unknown_file")
            expect_error(jobs.http.delete(f"/v1/files/{id}"), 404, "unknown_file")
            expect_error(jobs.http.get(f"/v1/files?after={id}"), 422, "invalid_query")
        url = f"/v1/batches/{batch['id']}"
        expect_error(jobs.http.get(url), 404, "unknown_batch")
        expect_error(jobs.http.post(f"{url}/cancel"), 404, "unknown_batch")
        expect_error(jobs.http.delete(url), 404, "unknown_batch")
        query = {"input_file_id": file, "endpoint": SCORE}
        expect_error(jobs.http.post("/v1/batches", json=query), 404, "unknown_file")
        own = jobs.upload(ndjson(make_rows(3)))["id"]
        same_key = jobs.create(key="once", input_file_id=own)
        assert same_key["id"] != batch["id"]
        listed = [one["id"] for one in jobs.http.get("/v1/batches").json()["data"]]
        assert listed == [same_key["id"], before["id"]]
        files = {one["id"] for one in jobs.http.get("/v1/files").json()["data"]}
        assert files >= {own, before["input_file_id"], before["output_file_id"]}
        assert not files & {file, output}
        jobs.until(same_key["id"])
        as_key(jobs, "ann")
        assert jobs.create(key="once", input_file_id=file)["id"] == batch["id"]
        assert len(jobs.records(batch)) == 3
        assert jobs.http.delete(url).status_code == 200
        assert jobs.http.delete(f"/v1/files/{file}").status_code == 200
    with opened_database(state) as database:
        owners = database.rows("SELECT owner FROM batches ORDER BY number")
        assert owners == [(None,), ("bob",)]
