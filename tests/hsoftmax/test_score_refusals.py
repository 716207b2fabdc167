"""Inputs and calls that `hsoftmax score` refuses, with exit code 2 or 1 and one line."""

import os
import struct
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hsoftmax.cli import run
from tests.scoring.conftest import make_rows, table, write

ROWS = 23


def test_a_truncated_parquet_is_a_one_line_error(score, tmp_path):
    path = write(tmp_path / "in.parquet", make_rows(ROWS))
    path.write_bytes(path.read_bytes()[:-40])
    score(path, expect=2)
    assert "expected Parquet, got" in score.said


def test_a_corrupt_page_ends_the_job_and_keeps_finished_shards(score, tmp_path):
    path = tmp_path / "in.parquet"
    made = table(make_rows(40))
    pq.write_table(made, path, row_group_size=10, compression="zstd", use_dictionary=False)
    column = pq.ParquetFile(path).metadata.row_group(3).column(2)
    data = bytearray(path.read_bytes())
    start = column.data_page_offset
    data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(data)
    score(path, expect=1)
    assert "could not be read on" in score.said
    assert not (tmp_path / "out.ndjson").exists()
    assert (tmp_path / "out.ndjson.parts").is_dir()


@pytest.mark.parametrize("cut", [1, 100])
def test_a_truncated_npy_is_a_one_line_error(score, tmp_path, cut):
    path = write(tmp_path / "in.npy", make_rows(ROWS))
    path.write_bytes(path.read_bytes()[:-cut])
    score(path, expect=2)
    assert "as its header says" in score.said


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"id,h0\xff,target", "header: expected UTF-8, got byte 5 that is not"),
        (b'id,"h0,target', "header: expected cells of CSV, got: unexpected end of data"),
    ],
)
def test_a_header_that_cannot_be_read_is_named(score, tmp_path, header, message):
    path = tmp_path / "in.csv"
    path.write_bytes(header + b"\n1,0.5,2\n")
    score(path, expect=2)
    assert f"in.csv: {message}" in score.said


WRONG_COLUMNS = {
    "text": ({"input": pa.array(["a"]), "target": pa.array([1])}, "input: expected lists of 6"),
    "width": ({"input": pa.array([[1.0] * 5], pa.list_(pa.float32(), 5)), "target": pa.array([1])},
              "input: expected 6 numbers in a row, got 5"),
    "target": ({"input": pa.array([[1.0] * 6]), "target": pa.array([True])},
               "target: expected integers or strings, got bool"),
    "missing": ({"state": pa.array([[1.0] * 6])}, "expected input, or h0 to h5, got state"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG_COLUMNS)
@pytest.mark.parametrize("of", ["parquet", "arrow"])
def test_columns_of_a_wrong_type_are_refused(score, tmp_path, of, wrong):
    columns, message = WRONG_COLUMNS[wrong]
    path = tmp_path / f"in.{of}"
    made = pa.table(columns)
    if of == "parquet":
        pq.write_table(made, path)
    else:
        with pa.ipc.new_file(path, made.schema) as writer:
            writer.write_table(made)
    score(path, expect=2)
    assert message in score.said


@pytest.mark.parametrize("size", [0, -5])
def test_lists_of_no_size_are_refused(score, tmp_path, size):
    """pyarrow reads any size from a file, but builds none below 1."""
    schema = pa.schema([("input", pa.list_(pa.float32(), 123_456_789)), ("target", pa.int64())])
    path = tmp_path / "in.arrow"
    with pa.ipc.new_stream(path, schema):
        pass
    written = struct.pack("<i", 123_456_789)
    assert path.read_bytes().count(written) == 1
    path.write_bytes(path.read_bytes().replace(written, struct.pack("<i", size)))
    score(path, expect=2)
    assert f"input: expected 6 numbers in a row, got {size}" in score.said


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 5), np.float32), "expected 6 numbers in a row, got [5] of float32"),
        (np.zeros(3, np.float32), "expected [rows, hidden_size] numbers"),
        (np.zeros((3, 7), np.float32, order="F"), "expected 6 numbers in a row"),
        (np.array([["a"] * 6]), "expected 6 numbers in a row"),
    ],
)
def test_arrays_of_a_wrong_shape_or_type_are_refused(score, tmp_path, array, message):
    path = tmp_path / "in.npy"
    np.save(path, array)
    score(path, task="top_k", expect=2)
    assert message in score.said


def test_no_pickle_is_ever_loaded(score, tmp_path):
    path = tmp_path / "in.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    score(path, task="top_k", expect=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"INPUT": "nowhere.ndjson"}, "does not exist"),
        ({"INPUT": "in.doc"}, "expected a name ending in .ndjson"),
        ({"OUTPUT": "out.txt"}, "expected a name ending in .ndjson"),
        ({"OUTPUT": "no/out.ndjson"}, "expected a folder to put it in"),
        ({"OUTPUT": "-"}, "OUTPUT: expected a file or a folder, got -"),
        ({"OUTPUT": "in.ndjson"}, "expected no such file, got one"),
        ({"TASK": "guess"}, "'guess' is not one of"),
        ({"COLUMNS": "colour=x"}, "expected one of input, id"),
        ({"COLUMNS": "h0..h2"}, "expected 6 for the input, got 3"),
    ],
)
def test_a_wrong_call_is_a_one_line_error(made, tmp_path, capsys, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "in.ndjson", make_rows(2))
    (tmp_path / "in.doc").touch()
    if "COLUMNS" in change:
        write(tmp_path / "in.csv", make_rows(2))
    call = {"INPUT": "in.csv" if "COLUMNS" in change else "in.ndjson", "OUTPUT": "out.ndjson",
             "TASK": "target_log_prob", **change}  # fmt: skip
    columns = ["--columns", call["COLUMNS"]] if "COLUMNS" in call else []
    arguments = [str(made), call["INPUT"], call["OUTPUT"], "--task", call["TASK"], *columns]
    assert run(["score", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_an_output_in_the_input_folder_is_refused(score, tmp_path):
    folder = tmp_path
    write(folder / "a.ndjson", make_rows(2))
    score(folder, expect=2)


def test_files_of_several_formats_are_refused(score, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / "a.ndjson", make_rows(2))
    write(folder / "b.csv", make_rows(2))
    score(folder, expect=2)
    assert "expected files of one format, got csv and ndjson" in score.said


def test_without_pyarrow_the_error_names_the_extra(score, tmp_path, monkeypatch):
    monkeypatch.setattr("hsoftmax.scoring.formats.registry.has_pyarrow", lambda: False)
    score(make_rows(2), "parquet", expect=1)
    assert "pip install '.[arrow]'" in score.said


def test_only_arrow_formats_need_pyarrow(made, tmp_path):
    path = write(tmp_path / "in.ndjson", make_rows(2))
    program = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from hsoftmax.cli import run\n"
        f"sys.exit(run(['score', {str(made)!r}, {str(path)!r}, {str(tmp_path / 'out.csv')!r},"
        " '--task', 'top_k', '--k', '2']))"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ)
