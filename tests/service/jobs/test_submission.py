"""Errors of POST /v1/batches: as early as possible, with one clear sentence, and without effect."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hsoftmax.scoring.formats import arrow_reader, registry
from hsoftmax.service.jobs import submission
from tests.service.conftest import HIDDEN, expect_error

from .conftest import SCORE, JobsClient, make_rows, ndjson, serving_jobs
from .test_batches import encode_rows


@pytest.mark.parametrize(
    ("query", "status", "code", "sentence"),
    [
        ({"endpoint": "/v1/embeddings"}, 422, "invalid_query", "endpoint: expected /v1/models/"),
        ({"endpoint": "/v1/models/nonesuch/score"}, 404, "unknown_bundle", "'nonesuch'"),
        ({"version": 9}, 404, "unknown_version", "got '9'"),
        ({"task": "guess"}, 422, "invalid_query", "task: expected one of target_log_prob"),
        ({"task": "perplexty"}, 422, "invalid_query", "did you mean perplexity?"),
        ({"endpoint": "/v1/models/words/topk", "task": "sample"}, 422, "invalid_query", "top_k"),
        ({"task": ""}, 422, "invalid_query", "task: expected one of target_log_prob"),
        ({"endpoint": "/v1/models/words/top_k", "task": "sample"}, 422, "invalid_query", "top_k"),
        ({"task": "top_k", "k": 0}, 422, "invalid_query", "k: expected 1 to 11, got 0"),
        ({"task": "sample", "num_samples": 0}, 422, "invalid_query", "num_samples"),
        ({"seed": -1}, 422, "invalid_query", "seed"),
        ({"oov": "maybe"}, 422, "invalid_query", "oov: expected error or exclude"),
        ({"task": "perplexity", "log_base": 1}, 422, "invalid_query", "log_base"),
        ({"columns": "a=b=c"}, 422, "invalid_query", "columns"),
        ({"columns": "h0..h999999"}, 422, "invalid_query", "columns: expected at most 100000"),
        ({"columns": [""] * 400_000}, 413, "too_large", "body: expected at most 1048576 bytes"),
        ({"completion_window": "1 day"}, 422, "invalid_query", "completion_window"),
        ({"completion_window": "31d"}, 422, "invalid_query", "at most 30d"),
        ({"completion_window": "0s"}, 422, "invalid_query", "completion_window"),
        ({"metadata": {"a": 1}}, 422, "invalid_query", "metadata"),
        ({"metadata": {str(i): "" for i in range(17)}}, 422, "invalid_query", "at most 16"),
        ({"metadata": {"a": "b" * 513}}, 422, "invalid_query", "512"),
        ({"output_format": "xlsx"}, 422, "invalid_query", "output_format: expected ndjson"),
        ({"input_file_id": "file-0"}, 404, "unknown_file", "'file-0'"),
        ({"input_file_id": None}, 422, "invalid_query", "got none"),
        ({"input_path": "x.csv"}, 422, "invalid_query", "got input_file_id and input_path"),
        ({"shards": 3}, 422, "invalid_query", "shards"),
    ],
)
def test_an_impossible_query_is_refused(jobs, query, status, code, sentence):
    file = jobs.upload(ndjson(make_rows(3)))["id"]
    response = jobs.http.post(
        "/v1/batches", json={"input_file_id": file, "endpoint": SCORE, **query}
    )
    expect_error(response, status, code, sentence)


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_an_invalid_idempotency_key_is_refused(jobs, key):
    query = {"input_file_id": "file-0", "endpoint": SCORE}
    response = jobs.http.post("/v1/batches", json=query, headers={"idempotency-key": key})
    sentence = f"idempotency-key: expected 1 to 255 characters, got {len(key)}"
    expect_error(response, 422, "invalid_query", sentence)


def test_a_body_that_is_no_json_is_refused(jobs):
    expect_error(jobs.http.post("/v1/batches", content=b"{"), 400, "invalid_json")


def expect_refused(jobs, content: bytes, name: str, sentence: str, **query) -> None:
    file = jobs.upload(content, name)["id"]
    response = jobs.http.post(
        "/v1/batches", json={"input_file_id": file, "endpoint": SCORE, **query}
    )
    expect_error(response, 422, "invalid_query", sentence)
    message = response.json()["error"]["message"]
    assert name in message or "columns" in message


def test_a_truncated_parquet_is_refused(jobs):
    content = encode_rows(make_rows(30), "parquet")
    expect_refused(jobs, content[: len(content) // 2], "half.parquet", "expected Parquet")


def test_wrong_column_types_are_refused(jobs):
    for kind, bad in (("parquet", "text"), ("arrow", "text")):
        table = pa.table({"input": [bad] * 3, "target": [1, 2, 3]})
        sink = io.BytesIO()
        if kind == "parquet":
            pq.write_table(table, sink)
        else:
            with pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
        expect_refused(
            jobs, sink.getvalue(), f"rows.{kind}", "expected lists of 8 numbers, got string"
        )


def test_a_wrong_width_of_all_rows_is_refused(jobs):
    sink = io.BytesIO()
    np.save(sink, np.zeros((4, HIDDEN + 1), np.float32))
    expect_refused(jobs, sink.getvalue(), "rows.npy", "expected 8 numbers in a row", task="top_k")


def test_a_csv_without_input_columns_is_refused(jobs):
    expect_refused(jobs, b"a,b\n1,2\n", "rows.csv", "columns: expected input, or h0 to h7")


def test_rows_of_a_wrong_width_fail_alone(jobs):
    rows = make_rows(60)
    for i in range(30, 60, 2):
        rows[i]["input"] = rows[i]["input"][:3]
    for kind in ("ndjson", "parquet"):
        content = ndjson(rows) if kind == "ndjson" else encode_rows(rows, kind)
        file = jobs.upload(content, f"rows.{kind}")["id"]
        batch = jobs.until(jobs.create(input_file_id=file)["id"])
        assert batch["request_counts"] == {"total": 60, "completed": 45, "failed": 15}
        assert {e["error"] for e in jobs.errors(batch)} == {"input: expected 8 numbers, got 3"}


def test_a_corrupt_parquet_fails_the_job_and_keeps_its_finished_rows(jobs, monkeypatch):
    """The footer is valid, so the error shows only when the job reads the rows."""
    monkeypatch.setattr(arrow_reader, "_BATCH_BYTES", 16 * 4 * HIDDEN)
    rows = make_rows(300)
    sink = io.BytesIO()
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, sink, row_group_size=50, compression="none", use_dictionary=False,
                   write_page_checksum=True)  # fmt: skip
    content = bytearray(sink.getvalue())
    group = pq.ParquetFile(io.BytesIO(content)).metadata.row_group(4)
    names = [group.column(i).path_in_schema for i in range(group.num_columns)]
    column = group.column(next(i for i, name in enumerate(names) if name.startswith("input")))
    content[column.data_page_offset : column.data_page_offset + 40] = b"\xff" * 40
    file = jobs.upload(bytes(content), "rows.parquet")["id"]
    batch = jobs.until(jobs.create(input_file_id=file, output_format="ndjson")["id"])
    assert batch["status"] == "failed"
    (error,) = batch["errors"]["data"]
    assert error["code"] == "input_unreadable"
    assert error["message"].startswith("rows.parquet: could not be read on")
    records = jobs.records(batch)
    assert 100 <= len(records) <= 200
    assert [r["custom_id"] for r in records] == [f"r{i}" for i in range(len(records))]
    assert batch["request_counts"]["total"] == 300
    good = jobs.run(make_rows(5))  # the next job is not affected
    assert good["status"] == "completed"


def test_parquet_without_its_reader_names_the_extra(jobs, monkeypatch):
    file = jobs.upload(encode_rows(make_rows(3), "parquet"), "rows.parquet")["id"]
    monkeypatch.setattr(registry, "has_pyarrow", lambda: False)
    response = jobs.http.post("/v1/batches", json={"input_file_id": file, "endpoint": SCORE})
    expect_error(response, 415, "unsupported_media_type", "pip install '.[arrow]'")


def test_a_layer_bundle_cannot_be_scored(jobs, monkeypatch):
    def refuse(loaded):
        raise submission.InvalidQuery("words: expected a softmax, got a SparseBlockDot")

    monkeypatch.setattr(submission, "bundle_info_of", refuse)
    file = jobs.upload(ndjson(make_rows(3)))["id"]
    assert jobs.create(input_file_id=file, expect=422)["error"]["code"] == "invalid_query"


# --- inputs in place ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def jobs_with_root(repository, tmp_path_factory) -> Iterator[JobsClient]:
    folder = tmp_path_factory.mktemp("rooted")
    with serving_jobs(repository, folder / "state", input_root=make_root(folder)) as client:
        yield client


def make_root(folder: Path) -> Path:
    """Create an input root with a file, a folder of files, and links that lead out of it."""
    root, outside = folder / "root", folder / "outside"
    (root / "folder").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret.ndjson").write_text(ndjson(make_rows(1)))
    (root / "rows.ndjson").write_text(ndjson(make_rows(25)))
    for i in range(3):
        (root / "folder" / f"{i}.ndjson").write_text(ndjson(make_rows(25)[8 * i : 8 * i + 8]))
    (root / "link.ndjson").symlink_to(outside / "secret.ndjson")
    (root / "linked").symlink_to(outside)
    (root / "within.ndjson").symlink_to(root / "rows.ndjson")
    (root / "circle").symlink_to(root / "circle")
    mixed = root / "mixed"
    mixed.mkdir()
    (mixed / "a.ndjson").symlink_to(outside / "secret.ndjson")
    (root / "text.doc").write_text("")
    return root


@pytest.mark.parametrize(
    ("path", "rows"),
    [("rows.ndjson", 25), ("folder", 24), ("within.ndjson", 25), ("folder/../rows.ndjson", 25)],
)
def test_files_are_read_in_place(jobs_with_root, path, rows):
    batch = jobs_with_root.until(jobs_with_root.create(input_path=path, output_format="csv")["id"])
    assert (batch["status"], batch["request_counts"]["completed"]) == ("completed", rows)
    assert (batch["input_path"], batch["input_file_id"]) == (path, None)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("../outside/secret.ndjson", 422, "invalid_query"),
        ("/etc/passwd", 422, "invalid_query"),
        ("link.ndjson", 422, "invalid_query"),
        ("linked", 422, "invalid_query"),
        ("linked/secret.ndjson", 422, "invalid_query"),
        ("circle", 422, "invalid_query"),
        ("circle/rows.ndjson", 422, "invalid_query"),
        ("rows.ndjson/rows.ndjson", 404, "unknown_file"),
        ("mixed", 422, "invalid_query"),
        ("a\0b", 422, "invalid_query"),
        ("text.doc", 422, "invalid_query"),
        ("nonesuch.ndjson", 404, "unknown_file"),
        ("x" * 300 + ".ndjson", 422, "invalid_query"),
    ],
)
def test_no_path_leads_out_of_the_root(jobs_with_root, path, status, code):
    response = jobs_with_root.http.post("/v1/batches", json={"input_path": path, "endpoint": SCORE})
    expect_error(response, status, code, "input_path")


def test_without_a_root_no_path_is_read(jobs):
    assert jobs.create(input_path="rows.ndjson", expect=403)["error"]["code"] == "forbidden"


def test_a_file_that_has_gone_from_the_disk_is_unknown(jobs):
    file = jobs.upload(ndjson(make_rows(3)))["id"]
    (path,) = jobs.state.rglob(f"*{file.removeprefix('file-')}*")
    path.unlink()
    response = jobs.http.post("/v1/batches", json={"input_file_id": file, "endpoint": SCORE})
    sentence = "input: expected the file that was uploaded, got none"
    expect_error(response, 404, "unknown_file", sentence)
