"""A wrong `--state` is one clear line at the start, or 503 on the routes of jobs; nothing shows
the password.
"""

import builtins
import subprocess
import sys
import time

import pytest

from hsoftmax.service import Settings, create_app
from hsoftmax.service.errors import StartError
from hsoftmax.service.jobs.migrations import POSTGRES, SQLITE
from hsoftmax.service.jobs.open_state import StateStore
from tests.service.conftest import HIDDEN, expect_error, serving

from .cluster import PASSWORD, Cluster, free_port, running
from .conftest import JobsClient, make_rows, ndjson

QUERY = {"inputs": [[0.5] * HIDDEN], "targets": [1]}
URL = "/v1/models/words/probabilities"


@pytest.fixture(scope="module", autouse=True)
def database_kind() -> None:
    """These tests make their own databases."""


@pytest.fixture(scope="module")
def cluster():
    with running() as cluster:
        yield cluster


@pytest.mark.parametrize(
    ("state", "files", "sentence"),
    [
        ("mysql://u:hush@h/db", "f", "got a URL that begins with mysql://"),
        ("postgrsql://u:hush@h/db", "f", "got a URL that begins with postgrsql://"),
        ("postgresql://u:hush@h:port/db", "f", "got one that cannot be read"),
        ("postgresql://u:hush@h", "f", "got one without a database"),
        ("postgresql://u:hush@h/db", None, "state_files: expected a folder that all replicas see"),
        ("folder", "f", "state_files: expected none"),
    ],
)
def test_a_wrong_state_is_one_line(tmp_path, state, files, sentence):
    settings = Settings(repository=tmp_path, state=state, state_files=files)
    assert "hush" not in repr(settings)
    with pytest.raises(StartError) as raised:
        create_app(settings)
    assert sentence in str(raised.value)
    assert "hush" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_driver_names_the_extra(tmp_path, monkeypatch):
    original = builtins.__import__

    def missing(name, *args, **kwargs):
        if name == "psycopg":
            raise ModuleNotFoundError("No module named 'psycopg'", name="psycopg")
        return original(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "hsoftmax.service.jobs.postgres_url", raising=False)
    monkeypatch.setattr(builtins, "__import__", missing)
    settings = Settings(repository=tmp_path, state="postgresql://u@h/db", state_files=tmp_path)
    with pytest.raises(StartError, match=r"the package psycopg .* pip install 'hsoftmax\[postgres"):
        StateStore(settings)


def test_a_service_with_a_folder_does_not_load_sqlalchemy():
    program = "import hsoftmax.service.app, sys; assert 'sqlalchemy' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_both_databases_have_the_same_migrations():
    def columns(migrations):
        return [[words.split(" ")[2] for words in one] for one in migrations], len(migrations)

    assert columns(SQLITE) == columns(POSTGRES)


def expect_jobs_away(http, sentence: str) -> None:
    """The routes of jobs are 503 with one sentence, and queries are answered."""
    client = JobsClient(http, None)
    assert client.upload("{}", expect=503)["error"]["code"] == "jobs_unavailable"
    expect_error(http.get("/v1/batches"), 503, "jobs_unavailable", sentence)
    assert http.post(URL, json=QUERY).status_code == 200
    assert http.get("/healthz/ready").status_code == 200


@pytest.mark.postgres
@pytest.mark.parametrize("wrong", ["password", "port"])
def test_a_database_that_refuses_at_the_start(repository, tmp_path, cluster, capfd, wrong):
    url = cluster.url(tmp_path, password="hush" if wrong == "password" else PASSWORD)
    if wrong == "port":
        url = url.replace(str(cluster.port), str(free_port()))
    with serving(repository, state=url, state_files=tmp_path) as http:
        expect_jobs_away(http, "expected the database of --state to answer")
    log = capfd.readouterr().err
    said = {"password": "password authentication failed", "port": "refused"}[wrong]
    assert said in log
    assert log.count('"event":"jobs_unavailable"') == 1
    assert "hush" not in log
    assert PASSWORD not in log
    assert "Traceback" not in log


@pytest.mark.postgres
def test_a_database_that_is_away_in_traffic(repository, tmp_path, capfd):
    with running() as cluster:
        settings = {"state": cluster.url(tmp_path), "state_files": tmp_path}
        with serving(repository, **settings, job_shard_rows=10, job_lease=2) as http:
            jobs = JobsClient(http, tmp_path)
            assert jobs.run(make_rows(20))["status"] == "completed"
            created = jobs.start(make_rows(5000))
            cluster.stop()
            expect_jobs_away(http, "expected the database of --state to answer")
            cluster.start()
            time.sleep(1.1)  # no request tries sooner
            assert jobs.until(created["id"], seconds=60)["status"] == "completed"
            assert len(jobs.records(jobs.batch(created["id"]))) == 5000
    log = capfd.readouterr().err
    assert PASSWORD not in log
    assert "Traceback" not in log


@pytest.mark.postgres
def test_a_newer_schema_is_one_clear_error(repository, tmp_path, cluster: Cluster):
    from hsoftmax.service.jobs.postgres_database import PostgresDatabase
    from hsoftmax.service.jobs.postgres_url import parse_url

    url = cluster.url(tmp_path)
    added = ["ALTER TABLE batches ADD COLUMN later TEXT"]
    PostgresDatabase(parse_url(url), [*POSTGRES, added]).close()
    with serving(repository, state=url, state_files=tmp_path) as http:
        known = len(POSTGRES)
        expect_jobs_away(http, f"expected schema version <= {known}, got {known + 1}: a newer")


@pytest.mark.postgres
def test_ids_that_postgresql_cannot_hold_are_not_found(repository, tmp_path, cluster):
    settings = {"state": cluster.url(tmp_path), "state_files": tmp_path}
    with serving(repository, **settings) as http:
        JobsClient(http, tmp_path).upload(ndjson(make_rows(1)))
        expect_error(http.get("/v1/files/a%00b"), 404, "unknown_file")
        expect_error(http.get("/v1/files?after=%00"), 422, "invalid_query")
        expect_error(http.delete("/v1/batches/%00"), 404, "unknown_batch")
