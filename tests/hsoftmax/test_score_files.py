"""Files under a wrong name are refused with the next step; more kinds of files are read."""

import gzip
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from tests.scoring.conftest import HIDDEN, make_rows, read, table, write

from .conftest import expected

ROWS = 23


def content_of(tmp_path, of: str) -> bytes:
    return write(tmp_path / f"content.{of}", make_rows(ROWS)).read_bytes()


def log_probs(output) -> list[float]:
    return [record["log_prob"] for record in read(output)]


# --- wrong names --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "real", "sentence"),
    [
        ("in.ndjson", "gzip", "expected NDJSON, got gzip: name it in.ndjson.gz, or decompress it"),
        ("in.csv", "gzip", "expected CSV, got gzip: name it in.csv.gz, or decompress it"),
        ("in.ndjson", "parquet", "expected NDJSON, got Parquet: name it in.parquet"),
        ("in.csv", "arrow", "expected CSV, got Arrow IPC: name it in.arrow"),
        ("in.csv", "npy", "expected CSV, got NPY: name it in.npy"),
        ("in.arrow", "parquet", "expected Arrow IPC, got Parquet: name it in.parquet"),
        ("in.parquet", "arrow", "expected Parquet, got Arrow IPC: name it in.arrow"),
        ("in.npy", "parquet", "expected NPY, got Parquet: name it in.parquet"),
        ("in.ndjson.gz", "ndjson", "expected gzip, which it is not: name it in.ndjson"),
    ],
)
def test_a_file_under_a_wrong_name_is_refused(score, tmp_path, name, real, sentence):
    path = tmp_path / name
    if real == "gzip":
        path.write_bytes(gzip.compress(content_of(tmp_path, "ndjson")))
    else:
        path.write_bytes(content_of(tmp_path, real))
    output = score(path, expect=2)
    assert sentence in score.said
    assert not output.exists()


def test_text_that_begins_like_another_format_is_read(score, tmp_path):
    path = tmp_path / "in.csv"
    names = ["PAR1", "target", *(f"h{i}" for i in range(HIDDEN))]
    path.write_text(",".join(names) + "\n" + ",".join(["1"] * len(names)) + "\n")
    score(path)
    assert "1 rows, 1 scored" in score.said


# --- gzip ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["ndjson", "csv"])
@pytest.mark.parametrize("parts", [1, 3])
def test_compressed_lines_are_read(score, tmp_path, of, parts):
    content = content_of(tmp_path, of)
    size = len(content) // parts
    pieces = [content[i * size : (i + 1) * size] for i in range(parts - 1)]
    pieces.append(content[size * (parts - 1) :])
    path = tmp_path / f"in.{of}.gz"
    path.write_bytes(b"".join(map(gzip.compress, pieces)))
    np.testing.assert_allclose(log_probs(score(path)), expected(make_rows(ROWS)), atol=1e-5)


def test_a_folder_of_compressed_files_makes_plain_ones(made, tmp_path, score):
    folder = tmp_path / "folder"
    folder.mkdir()
    lines = content_of(tmp_path, "ndjson").splitlines(keepends=True)
    (folder / "a.ndjson.gz").write_bytes(gzip.compress(b"".join(lines[:13])))
    (folder / "b.ndjson").write_bytes(b"".join(lines[13:]))
    from hsoftmax.cli import run

    output = tmp_path / "out"
    arguments = [str(made), str(folder), str(output), "--task", "target_log_prob"]
    assert run(["score", *arguments, "--shard-rows", "10", "--batch", "5"]) == 0
    parts = sorted(output.iterdir())
    assert [part.name for part in parts] == [f"part-{i:05}.ndjson" for i in range(3)]
    got = [log_prob for part in parts for log_prob in log_probs(part)]
    np.testing.assert_allclose(got, expected(make_rows(ROWS)), atol=1e-5)


@pytest.mark.parametrize("cut", [1, 9, 40])
def test_damaged_compression_ends_the_job_with_one_line(score, tmp_path, cut):
    path = tmp_path / "in.ndjson.gz"
    path.write_bytes(gzip.compress(content_of(tmp_path, "ndjson"))[:-cut])
    score(path, expect=1)
    assert "in.ndjson.gz: expected gzip to its end, got: " in score.said


def test_an_output_is_not_compressed(score, tmp_path):
    score(make_rows(1), "ndjson.gz", expect=2)
    assert "expected an output without .gz" in score.said


# --- column-wise --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
def test_an_array_in_fortran_order_is_read(score, tmp_path, dtype):
    states = (np.random.default_rng(0).normal(size=(ROWS, HIDDEN)) * 3).astype(dtype)
    outputs = []
    for order in "CF":
        path = tmp_path / f"in{order}.npy"
        np.save(path, np.array(states, order=order))
        output = score(path, task="log_probs")
        outputs.append(read(output))
        output.unlink()
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) == ROWS


@pytest.mark.parametrize("compression", ["uncompressed", "lz4", "zstd"])
def test_feather_is_read(score, tmp_path, compression):
    path = tmp_path / "in.feather"
    pyarrow.feather.write_feather(table(make_rows(ROWS)), path, compression=compression)
    np.testing.assert_allclose(log_probs(score(path)), expected(make_rows(ROWS)), atol=1e-5)


def test_feather_is_written(score, tmp_path):
    output = score(make_rows(ROWS), "feather")
    got = pyarrow.feather.read_table(output)["log_prob"].to_pylist()
    np.testing.assert_allclose(got, expected(make_rows(ROWS)), atol=1e-5)


@pytest.mark.parametrize("of", ["parquet", "arrow"])
def test_tensors_of_a_fixed_shape_are_read(score, tmp_path, of):
    rows = make_rows(ROWS)
    states = np.array([row["input"] for row in rows], dtype=np.float32)
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(states.reshape(ROWS, 2, HIDDEN // 2))
    made = table(rows)
    made = made.set_column(made.schema.get_field_index("input"), "input", tensors)
    path = tmp_path / f"in.{of}"
    if of == "parquet":
        pq.write_table(made, path)
    else:
        with pa.ipc.new_file(path, made.schema) as writer:
            writer.write_table(made)
    np.testing.assert_allclose(log_probs(score(path)), expected(rows), atol=1e-5)


def test_a_bomb_costs_no_memory_for_its_line(score, tmp_path):
    """A line that is too long fails alone, also if a few kilobytes decompress to it."""
    line = json.dumps(make_rows(1)[0]).encode()
    sink = io.BytesIO()
    with gzip.GzipFile(fileobj=sink, mode="wb") as file:
        file.write(line + b"\n")
        for _ in range(40):
            file.write(bytes(2**20))
        file.write(b"\n" + line + b"\n")
    path = tmp_path / "in.ndjson.gz"
    path.write_bytes(sink.getvalue())
    got = read(score(path))
    assert [record.get("code") for record in got] == [None, "too_large", None]
