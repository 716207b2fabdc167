"""Jobs that read and write objects of real servers, through faults and kills."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hsoftmax.stores.objects import ObjectStore
from hsoftmax.stores.url import parse_url
from tests.service.conftest import HIDDEN
from tests.service.jobs.conftest import ENDED, SCORE, make_rows, ndjson
from tests.service.jobs.stopping_service import STOPPING_SERVICE
from tests.service.processes import Process

from .conftest import until
from .fault_proxy import FaultProxy, cut, hang, refuse
from .object_servers import BUCKET

pytestmark = [pytest.mark.stores, pytest.mark.timeout(600)]

OVERLOAD = refuse(b"503 Service Unavailable", b"SlowDown")
DENIED = refuse(b"403 Forbidden", b"AccessDenied")
ROWS = ndjson(make_rows(60)) + '{"custom_id": "wrong"}\n'

Run = Callable[..., Process]


def put(url: str, content: str) -> str:
    address = parse_url(url)
    ObjectStore(address.parent).write(address.name, content.encode())
    return url


def content(url: str) -> bytes:
    address = parse_url(url)
    return ObjectStore(address.parent).read(address.name, 10**8)


@pytest.fixture
def run(start, bundles, tmp_path, monkeypatch) -> Run:
    """Function that starts a service of `words` with one state folder, whose jobs may stop."""
    (tmp_path / "phases").mkdir()
    monkeypatch.setenv("PHASES", str(tmp_path / "phases"))

    def run(**settings: object) -> Process:
        settings = {"state": tmp_path / "state", "job_shard_rows": 10, "watch": False, **settings}
        return start(bundles(1).parents[1], run=STOPPING_SERVICE, **settings)

    return run


def create(service: Process, expect: int = 200, **query: object) -> dict:
    status, body = service.call("POST", "/v1/batches", json.dumps({"endpoint": SCORE, **query}))
    assert status == expect, body
    return body


def ended(service: Process, id: str) -> dict:
    until(lambda: service.get(f"/v1/batches/{id}")[1]["status"] in ENDED, 120)
    return service.get(f"/v1/batches/{id}")[1]


def output(service: Process, batch: dict) -> bytes:
    connection = service.connect()
    connection.request("GET", f"/v1/files/{batch['output_file_id']}/content")
    return connection.getresponse().read()


def error(batch: dict) -> dict:
    assert batch["status"] == "failed", batch
    return batch["errors"]["data"][0]


def stopped(folder: Path, phase: str) -> None:
    """Wait until the service has stopped in the phase, and forget it."""
    until(lambda: bool(list((folder / "phases").glob(f"{phase}.*"))))
    for path in (folder / "phases").glob(f"{phase}.*"):
        path.unlink()


def test_a_job_goes_from_store_to_store_and_replaces_nothing(server, run):
    base = server.url.removesuffix("/models")
    service = run(job_urls=f"{base}/in,{base}/out")
    source, to = put(f"{base}/in/rows.ndjson", ROWS), f"{base}/out/records.ndjson"
    batch = ended(service, create(service, input_url=source, output_url=to)["id"])
    assert (batch["status"], batch["input_url"], batch["output_url"]) == ("completed", source, to)
    assert batch["request_counts"] == {"total": 61, "completed": 60, "failed": 1}
    records = content(to)
    assert records == output(service, batch)
    assert len(records.splitlines()) == 60
    again = ended(service, create(service, input_url=source, output_url=to)["id"])
    assert again["status"] == "completed"
    put(to, "of another job")
    refused = ended(service, create(service, input_url=source, output_url=to)["id"])
    assert error(refused)["code"] == "output_exists"
    assert content(to) == b"of another job"
    assert output(service, refused) == records
    assert "expected an object at" in str(create(service, 404, input_url=f"{base}/in/none.csv"))
    server.stop()
    assert "store_unavailable" in str(create(service, 503, input_url=source))


def test_an_input_of_several_pieces_arrives_whole(s3, run, tmp_path):
    rows = np.random.default_rng(1).normal(size=(300_000, HIDDEN)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)  # 9.6 MB
    url = f"s3://{BUCKET}/rows.npy"
    ObjectStore(parse_url(f"s3://{BUCKET}")).write("rows.npy", tmp_path / "rows.npy")
    service = run(job_urls=f"s3://{BUCKET}", job_shard_rows=100_000)
    batch = ended(service, create(service, input_url=url, task="top_k", k=1)["id"])
    assert batch["request_counts"]["completed"] == 300_000
    (copy,) = (tmp_path / "state" / "files").iterdir()
    assert copy.read_bytes() == (tmp_path / "rows.npy").read_bytes()


def test_an_object_that_changes_before_the_work_is_refused(server, run, tmp_path):
    base = server.url.removesuffix("/models")
    source = put(f"{base}/rows.ndjson", ROWS)
    (tmp_path / "phases" / "fetch").touch()
    service = run(job_urls=base)
    id = create(service, input_url=source)["id"]
    stopped(tmp_path, "fetch")
    service.end()
    put(source, ROWS.replace("r1", "r2"))  # of the same size
    batch = ended(run(job_urls=base), id)
    assert (error(batch)["code"], error(batch)["param"]) == ("input_changed", "input_url")


def test_a_service_that_is_killed_at_a_transfer_writes_the_same_object_once(s3, run, tmp_path):
    base = f"s3://{BUCKET}"
    source = put(f"{base}/rows.ndjson", ROWS)
    proxy = FaultProxy(s3.port)
    try:
        service = run(job_urls=base)
        create_query = {"input_url": source, "output_url": f"{base}/calm.ndjson"}
        assert ended(service, create(service, **create_query)["id"])["status"] == "completed"
        service.end()
        wanted = content(f"{base}/calm.ndjson")
        for phase in ("fetch", "download", "publish", "upload", "finish", "answer"):
            to = f"{base}/{phase}.ndjson"
            if phase == "answer":  # the store has the object, and the service does not know it
                with pytest.MonkeyPatch.context() as environment:
                    environment.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
                    proxy.spoil("answer", hang)
                    service = run(job_urls=base)
            else:
                (tmp_path / "phases" / phase).touch()
                service = run(job_urls=base)
            id = create(service, input_url=source, output_url=to)["id"]
            if phase == "answer":
                until(lambda: proxy.hits > 0)
            else:
                stopped(tmp_path, phase)
            service.end()
            service = run(job_urls=base)
            batch = ended(service, id)
            assert batch["status"] == "completed", (phase, batch)
            assert content(to) == output(service, batch) == wanted
            service.end()
    finally:
        proxy.close()


def test_faults_of_the_store_are_waited_for_or_one_sentence(s3, run, tmp_path, monkeypatch):
    base = f"s3://{BUCKET}"
    source = put(f"{base}/rows.ndjson", ROWS)
    proxy = FaultProxy(s3.port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
    try:
        for fault in (cut, OVERLOAD):  # of the download
            (tmp_path / "phases" / "fetch").touch()
            service = run(job_urls=base)
            id = create(service, input_url=source)["id"]
            stopped(tmp_path, "fetch")
            service.end()
            proxy.spoil("/rows.ndjson", fault)
            service = run(job_urls=base)
            service.until("job_store_failed")
            assert proxy.hits > 0
            proxy.heal()
            assert ended(service, id)["status"] == "completed"
            service.end()
        service = run(job_urls=base)
        for name, fault in {"cut": cut, "overload": OVERLOAD}.items():  # of the upload
            to = f"{base}/{name}.ndjson"
            proxy.spoil(f"/{name}.ndjson", fault, before=name == "overload")
            id = create(service, input_url=source, output_url=to)["id"]
            until(lambda: proxy.hits > 0)
            proxy.heal()
            batch = ended(service, id)
            assert batch["status"] == "completed", batch
            assert content(to) == output(service, batch)
        proxy.spoil("/denied.ndjson", DENIED, before=True)
        id = create(service, input_url=source, output_url=f"{base}/denied.ndjson")["id"]
        batch = ended(service, id)
        assert error(batch)["code"] == "output_refused"
        assert len(output(service, batch).splitlines()) == 60
        assert "SECRET" not in str(batch) + service.read_log()
    finally:
        proxy.close()
