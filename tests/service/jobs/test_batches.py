"""Batches: the OpenAI object, one record or error a row, and one job an idempotency key."""

import io
import json
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hsoftmax import models
from tests.service.conftest import HIDDEN, SERVED, TARGETS, TOLERANCE, expect_error

from .conftest import SCORE, make_rows, ndjson, serving_jobs, until_held

MODEL = SERVED["words", 2]


def expected(rows) -> np.ndarray:
    hidden = np.array([row["input"] for row in rows], dtype=np.float32)
    target = np.array([row["target"] for row in rows])
    return models.reference(MODEL).target_log_prob(MODEL, hidden, np.arange(len(rows)), target)


def test_the_output_has_all_rows_in_order(jobs):
    rows = make_rows(37)
    created = jobs.start(rows, metadata={"who": "me"})
    assert {k: created[k] for k in ("object", "status", "endpoint", "completion_window", "model",
                                 "version", "task", "metadata", "output_file_id")} == {
        "object": "batch", "status": "validating", "endpoint": SCORE, "completion_window": "24h",
        "model": "words", "version": "2", "task": "target_log_prob", "metadata": {"who": "me"},
        "output_file_id": None}  # fmt: skip
    assert created["expires_at"] - created["created_at"] == 24 * 3600
    batch = jobs.until(created["id"])
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": 37, "completed": 37, "failed": 0}
    assert batch["digest"] == jobs.http.get("/v1/models/words").json()["digest"]
    assert (batch["progress"], batch["errors"], batch["error_file_id"]) == (100, None, None)
    times = [batch[f"{one}_at"] for one in ("created", "in_progress", "finalizing", "completed")]
    assert times == sorted(times)
    assert all(batch[f"{one}_at"] is None for one in ("failed", "expired", "cancelled"))
    records = jobs.records(batch)
    assert [record["custom_id"] for record in records] == [row["custom_id"] for row in rows]
    got = [record["log_prob"] for record in records]
    np.testing.assert_allclose(got, expected(rows), atol=TOLERANCE)
    output = jobs.http.get(f"/v1/files/{batch['output_file_id']}").json()
    assert output["purpose"] == "batch_output"
    assert output["filename"] == f"{batch['id']}_output.ndjson"


@pytest.mark.parametrize("id", ["id", "custom_id"])
def test_every_row_is_a_record_or_an_error(jobs, id):
    rows = make_rows(40, id)
    rows[3]["target"] = TARGETS
    rows[11]["input"][2] = float("nan")
    rows[12]["input"].append(1.0)
    rows[25] = {id: "late"}
    rows[30][id] = rows[29][id] = rows[1][id]
    batch = jobs.run(rows)
    assert batch["request_counts"] == {"total": 40, "completed": 34, "failed": 6}
    errors = jobs.errors(batch)
    assert [(error["line"] - 1, error[id], error["code"]) for error in errors] == [
        (3, "r3", "target_out_of_range"),
        (11, "r11", "invalid_query"),
        (12, "r12", "invalid_query"),
        (25, "late", "invalid_query"),
        (29, "r1", "duplicate_id"),
        (30, "r1", "duplicate_id"),
    ]
    assert "as in row 2" in errors[-1]["error"]
    wrong = {error["line"] - 1 for error in errors}
    assert [record[id] for record in jobs.records(batch)] == [
        row[id] for i, row in enumerate(rows) if i not in wrong
    ]


def test_a_threshold_keeps_the_targets_above_it(jobs):
    rows = make_rows(9)
    batch = jobs.run(rows, task="top_k", k=3, threshold=0.2)
    hidden = np.array([row["input"] for row in rows], dtype=np.float32)
    probs = np.exp(models.reference(MODEL).log_probs(MODEL, hidden))
    records = jobs.records(batch)
    for row, record in zip(probs, records, strict=True):
        above = [t for t in np.argsort(-row).tolist() if row[t] > 0.2]
        assert record["targets"] == above[:3]
        assert record["truncated"] is (len(above) > 3)
    assert {len(record["targets"]) for record in records} > {1}


@pytest.mark.parametrize("output_format", ["ndjson", "csv", "parquet", "arrow", "npy"])
@pytest.mark.parametrize("input_format", ["csv", "parquet", "arrow", "npy"])
def test_formats(jobs, input_format, output_format):
    rows = make_rows(23)
    rows[5]["target"] = TARGETS
    rows[6]["custom_id"] = "r2"
    file = jobs.upload(encode_rows(rows, input_format), f"rows.{input_format}")
    created = jobs.create(input_file_id=file["id"], output_format=output_format)
    batch = jobs.until(created["id"])
    assert batch["request_counts"] == {"total": 23, "completed": 21, "failed": 2}, batch
    errors = jobs.errors(batch)
    assert [error["custom_id"] for error in errors] == ["r5", "r2"]
    assert [error["code"] for error in errors] == ["target_out_of_range", "duplicate_id"]
    wrong = (5, 6)
    wanted = expected([{**row, "target": row["target"] % TARGETS} for row in rows])
    if output_format == "npy":  # npy output has no ids: a row is found by its position
        got = np.load(io.BytesIO(jobs.content(batch["output_file_id"])))
        assert list(np.flatnonzero(np.isnan(got))) == list(wrong)
        wanted[list(wrong)] = np.nan
    else:
        wanted = np.delete(wanted, wrong)
        columns = decode_rows(jobs.content(batch["output_file_id"]), output_format)
        assert set(columns) == {"custom_id", "log_prob"}
        assert columns["custom_id"] == [f"r{i}" for i in range(23) if i not in wrong]
        got = [float(value) for value in columns["log_prob"]]
    np.testing.assert_allclose(got, wanted, atol=TOLERANCE)


def encode_rows(rows, file_format: str) -> bytes:
    names = ("custom_id", "target", "sequence")
    match file_format:
        case "csv":
            head = ",".join([*names, *(f"h{i}" for i in range(HIDDEN))])
            lines = [",".join(map(str, [*(r[n] for n in names), *r["input"]])) for r in rows]
            return "\n".join([head, *lines]).encode()
        case "npy":
            kinds = [("custom_id", "U8"), ("input", "f4", HIDDEN), ("target", "i8")]
            array = np.array([(r["custom_id"], r["input"], r["target"]) for r in rows], kinds)
            sink = io.BytesIO()
            np.save(sink, array)
            return sink.getvalue()
        case _:
            table = pa.Table.from_pylist(rows)
            sink = io.BytesIO()
            if file_format == "parquet":
                pq.write_table(table, sink, row_group_size=6)
            else:
                with pa.ipc.new_file(sink, table.schema) as writer:
                    writer.write_table(table, max_chunksize=4)
            return sink.getvalue()


def decode_rows(content: bytes, file_format: str) -> dict[str, list]:
    match file_format:
        case "ndjson":
            rows = [json.loads(line) for line in content.splitlines()]
            return {name: [row[name] for row in rows] for name in rows[0]}
        case "csv":
            head, *lines = content.decode().splitlines()
            columns = zip(*(line.split(",") for line in lines), strict=True)
            return {n: list(column) for n, column in zip(head.split(","), columns, strict=True)}
        case "parquet":
            return pq.read_table(io.BytesIO(content)).to_pydict()
        case _:
            return pa.ipc.open_file(io.BytesIO(content)).read_all().to_pydict()


@pytest.mark.parametrize(
    ("endpoint", "query", "task", "fields"),
    [
        ("probabilities", {}, "probabilities", {"probabilities"}),
        ("top_k", {"k": 2}, "top_k", {"targets", "labels", "probabilities", "exact", "blocks"}),
        ("score", {"task": "log_probs"}, "log_probs", {"log_probs"}),
        ("score", {"task": "sample", "num_samples": 3, "seed": 5}, "sample",
         {"targets", "labels", "probabilities"}),
    ],
)  # fmt: skip
def test_tasks(jobs, endpoint, query, task, fields):
    batch = jobs.run(make_rows(15), endpoint=f"/v1/models/words/{endpoint}", **query)
    assert (batch["status"], batch["task"]) == ("completed", task)
    records = jobs.records(batch)
    assert len(records) == 15
    assert set(records[0]) == {"custom_id"} | fields


def test_perplexity_has_totals_and_sequences(jobs):
    rows = make_rows(30)
    batch = jobs.run(rows, task="perplexity", log_base=2.0)
    log_prob = expected(rows)
    corpus = batch["summary"]["corpus"]
    assert corpus["perplexity"] == pytest.approx(np.exp(-log_prob.mean()), rel=1e-5)
    assert corpus["log_prob"] == pytest.approx(log_prob.sum() / np.log(2), rel=1e-5)
    sequences = jobs.records(batch, "sequences_file_id")
    assert [one["words"] for one in sequences] == [7, 7, 7, 7, 2]


def test_an_old_version_and_columns(jobs):
    rows = [{"state": row["input"], "goal": row["target"]} for row in make_rows(12)]
    batch = jobs.run(rows, version=1, columns=["input=state", "target=goal"])
    assert (batch["version"], batch["request_counts"]["completed"]) == ("1", 12)


def test_an_empty_file_completes(jobs):
    batch = jobs.until(jobs.create(input_file_id=jobs.upload("")["id"])["id"])
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    assert jobs.content(batch["output_file_id"]) == b""


# --- keys, lists, limits ------------------------------------------------------------------------


def test_an_idempotency_key_creates_one_job(jobs):
    file = jobs.upload(ndjson(make_rows(3)))["id"]
    first = jobs.create(key="once", input_file_id=file)
    again = jobs.create(key="once", input_file_id=file)
    assert again["id"] == first["id"]
    assert jobs.create(key="twice", input_file_id=file)["id"] != first["id"]
    other = jobs.create(key="once", input_file_id=file, task="top_k", expect=409)
    assert other["error"]["code"] == "idempotency_key_reused"
    assert (
        jobs.create(key="k" * 300, input_file_id=file, expect=422)["error"]["code"]
        == "invalid_query"
    )


def test_an_idempotency_key_survives_a_restart(repository, tmp_path):
    with serving_jobs(repository, tmp_path) as jobs:
        file = jobs.upload(ndjson(make_rows(3)))["id"]
        first = jobs.create(key="once", input_file_id=file)
    with serving_jobs(repository, tmp_path) as jobs:
        assert jobs.create(key="once", input_file_id=file)["id"] == first["id"]
        assert jobs.until(first["id"])["status"] == "completed"


def test_batches_are_listed_newest_first(repository, tmp_path):
    with serving_jobs(repository, tmp_path) as jobs:
        assert jobs.http.get("/v1/batches").json() == {
            "object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False
        }  # fmt: skip
        ids = [jobs.start(make_rows(2))["id"] for _ in range(4)]
        page = jobs.http.get("/v1/batches?limit=3").json()
        assert [batch["id"] for batch in page["data"]] == ids[:0:-1]
        assert (page["has_more"], page["first_id"], page["last_id"]) == (True, ids[3], ids[1])
        rest = jobs.http.get(f"/v1/batches?after={ids[1]}").json()
        assert [batch["id"] for batch in rest["data"]] == ids[:1]
        assert not rest["has_more"]
        expect_error(jobs.http.get("/v1/batches?after=x"), 422, "invalid_query", "after")
        expect_error(jobs.http.get("/v1/batches?limit=0"), 422, "invalid_query", "limit")


def test_the_number_of_jobs_is_bounded(repository, tmp_path, valve):
    valve.passing = 0
    with serving_jobs(repository, tmp_path, max_jobs=2) as jobs:
        file = jobs.upload(ndjson(make_rows(5)))["id"]
        first = [jobs.create(input_file_id=file) for _ in range(2)]
        response = jobs.http.post("/v1/batches", json={"input_file_id": file, "endpoint": SCORE})
        expect_error(response, 429, "too_many_jobs", "at most 2")
        assert response.headers["x-should-retry"] == "false"  # OpenAI's clients don't wait
        assert int(response.headers["retry-after"]) >= 1
        valve.open()
        for batch in first:
            assert jobs.until(batch["id"])["status"] == "completed"
        jobs.create(input_file_id=file)


def test_jobs_are_counted(jobs):
    jobs.run(make_rows(5))
    deadline = time.monotonic() + 5
    while 'hsoftmax_jobs{status="completed"}' not in (page := jobs.http.get("/metrics").text):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert 'hsoftmax_job_rows_total{model="words",outcome="scored"}' in page


# --- cancel and expiry --------------------------------------------------------------------------


def test_a_cancelled_job_keeps_its_finished_rows(jobs, valve):
    valve.passing = 6
    rows = make_rows(200)
    created = jobs.start(rows)
    jobs.until(created["id"], "in_progress")
    until_held(jobs, created["id"], valve)
    assert jobs.cancel(created["id"])["status"] in ("cancelling", "cancelled")
    batch = jobs.until(created["id"])
    assert batch["status"] == "cancelled"
    assert batch["cancelling_at"] <= batch["cancelled_at"]
    records = jobs.records(batch)
    assert 0 < len(records) < 200
    assert len(records) % 10 == 0  # whole shards
    assert [r["custom_id"] for r in records] == [r["custom_id"] for r in rows[: len(records)]]
    assert batch["request_counts"] == {"total": 200, "completed": len(records), "failed": 0}
    assert jobs.cancel(created["id"]) == batch
    assert not list((jobs.state / "jobs" / created["id"]).glob("*.parts"))


def test_a_waiting_job_is_cancelled_at_once(jobs, valve):
    valve.passing = 0
    first, second = (jobs.start(make_rows(5)) for _ in range(2))
    jobs.until(first["id"], "in_progress")
    assert jobs.cancel(second["id"])["status"] == "cancelled"
    valve.open()
    assert jobs.until(first["id"])["status"] == "completed"
    batch = jobs.batch(second["id"])
    assert (batch["status"], batch["output_file_id"]) == ("cancelled", None)


def test_an_ended_job_cannot_be_cancelled(jobs):
    batch = jobs.run(make_rows(3))
    response = jobs.http.post(f"/v1/batches/{batch['id']}/cancel")
    expect_error(response, 409, "batch_ended", "completed")
    expect_error(jobs.http.post("/v1/batches/nonesuch/cancel"), 404, "unknown_batch")
    expect_error(jobs.http.get("/v1/batches/nonesuch"), 404, "unknown_batch")


def test_running_and_waiting_jobs_expire(jobs, valve):
    valve.passing = 3
    running = jobs.start(make_rows(100), completion_window="2s")
    waiting = jobs.start(make_rows(5), completion_window="1s")
    assert jobs.until(waiting["id"])["status"] == "expired"
    batch = jobs.until(running["id"])
    assert batch["status"] == "expired"
    assert batch["expired_at"] >= batch["expires_at"]
    assert len(jobs.records(batch)) == batch["request_counts"]["completed"] > 0
    assert jobs.batch(waiting["id"])["output_file_id"] is None


@pytest.mark.parametrize("task", ["target_log_prob", "top_k", "log_probs", "sample"])
def test_logits_that_overflow_are_the_error_of_their_row(jobs, task):
    rows = make_rows(40)
    rows[17]["input"] = [3e38] * 4 + [0.0] * (HIDDEN - 4)
    batch = jobs.run(rows, task=task, k=3)
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": 40, "completed": 39, "failed": 1}
    (error,) = jobs.errors(batch)
    assert (error["line"], error["code"]) == (18, "logits_overflow")


def test_a_job_in_which_every_row_failed_says_the_commonest_reason(jobs):
    rows = make_rows(20)
    for row in rows:
        row["target"] = 99
    rows[3]["input"] = []
    batch = jobs.run(rows)
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": 20, "completed": 0, "failed": 20}
    (error,) = batch["errors"]["data"]
    assert error["code"] == "all_rows_failed"
    assert "20 that failed; 19 of them target_out_of_range: target: expected" in error["message"]
    assert [one["rows"] for one in batch["summary"]["failures"]] == [19, 1]
    assert len(jobs.errors(batch)) == 20


def test_an_ended_job_is_deleted_with_its_files_and_a_running_one_is_not(jobs, valve):
    valve.passing = 0
    created = jobs.start(make_rows(10))
    url = f"/v1/batches/{created['id']}"
    jobs.until(created["id"], "in_progress")
    refused = jobs.http.delete(url)
    expect_error(refused, 409, "batch_active")
    valve.open()
    batch = jobs.until(created["id"])
    other = jobs.run(make_rows(10))
    assert jobs.http.delete(url).json() == {
        "id": created["id"], "object": "batch", "deleted": True,
    }  # fmt: skip
    assert jobs.http.get(url).status_code == 404
    assert jobs.http.delete(url).status_code == 404
    assert jobs.http.get(f"/v1/files/{batch['output_file_id']}").status_code == 404
    assert not (jobs.state / "jobs" / created["id"]).exists()
    assert jobs.content(created["input_file_id"])
    assert len(jobs.records(other)) == 10
