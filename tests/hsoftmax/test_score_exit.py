"""The exit code of `score`: a run that scored nothing is no success, and says the reason."""

import json

import pytest

from tests.scoring.conftest import FORMATS, HIDDEN, make_rows, read, write


def test_a_run_in_which_every_row_failed_says_the_commonest_reason(score, tmp_path):
    rows = make_rows(30)
    for row in rows:
        row["target"] = 99
    lines = [json.dumps(row) for row in rows]
    lines[0] = lines[20] = "{wrong"
    path = tmp_path / "in.ndjson"
    path.write_text("\n".join(lines))
    output = score(path, "ndjson", expect=1)
    assert score.said.startswith(
        "hsoftmax: rows: expected some that can be scored, got 30 that failed; 28 of them "
        "target_out_of_range: target: expected 0 to 10, got 99"
    )
    assert len(read(output)) == 30  # the output is there
    summary = json.loads((tmp_path / "out.ndjson.summary.json").read_text())
    assert [(one["code"], one["rows"]) for one in summary["failures"]] == [
        ("target_out_of_range", 28),
        ("invalid_json", 2),
    ]
    score(path, "ndjson", "--resume", expect=1)
    assert "28 of them target_out_of_range" in score.said


@pytest.mark.parametrize("of", FORMATS)
def test_it_is_so_for_every_format(score, of):
    rows = make_rows(5)
    for row in rows:
        row["target"] = -1
    score(rows, "csv", of=of, expect=1)
    assert "5 of them target_out_of_range: target: expected 0 to 10, got -1" in score.said


def test_one_scored_row_is_a_success(score):
    rows = make_rows(12)
    for row in rows[1:]:
        row["target"] = 99
    score(rows)
    assert "1 scored, 11 failed" in score.said


def test_a_header_without_rows_is_no_success(score, tmp_path):
    path = tmp_path / "in.csv"
    path.write_text(",".join(["target", *(f"h{i}" for i in range(HIDDEN))]) + "\n")
    output = score(path, "ndjson", expect=1)
    assert "in.csv: expected rows, got none in " in score.said
    assert read(output) == []


@pytest.mark.parametrize("of", ["parquet", "arrow", "npy"])
def test_a_table_that_says_it_has_no_rows_is_a_success(score, tmp_path, of):
    write(tmp_path / "full.parquet", make_rows(1))
    path = tmp_path / f"in.{of}"
    if of == "npy":
        import numpy as np

        np.save(path, np.zeros((0, HIDDEN), dtype=np.float32))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        empty = pq.read_table(tmp_path / "full.parquet").slice(0, 0)
        if of == "parquet":
            pq.write_table(empty, path)
        else:
            with pa.ipc.new_file(path, empty.schema) as writer:
                writer.write_table(empty)
    score(path, "ndjson", task="top_k")
    assert "0 rows, 0 scored, 0 failed" in score.said
