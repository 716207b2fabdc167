"""`hsoftmax score` with files: formats, errors in their rows' places, perplexity."""

import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hsoftmax import models
from hsoftmax.cli import run
from tests.first_example import PERPLEXITY, export_first_example, read_heldout
from tests.scoring.conftest import (
    FORMATS,
    HIDDEN,
    LABELS,
    TARGETS,
    make_model,
    make_rows,
    read,
    table,
    write,
)

from .conftest import SMALL, expected

ROWS = 23  # not a multiple of the shard size 10, nor of the batch size 4
HIERARCHICAL = models.hierarchical_softmax


def expect_summary_of(output, content):
    """Asserts that the summary has the size and the hash of the output."""
    summary = json.loads(output.with_name(output.name + ".summary.json").read_text())
    assert summary["size"] == len(content)
    assert summary["sha256"] == hashlib.sha256(content).hexdigest()


# --- formats ------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("of", FORMATS)
def test_every_input_format_into_every_output_format(score, of, to):
    rows = make_rows(ROWS)
    output = score(rows, to, of=of)
    got = read(output)
    name = "value" if to == "npy" else "log_prob"
    np.testing.assert_allclose([record[name] for record in got], expected(rows), atol=1e-5)
    expect_summary_of(output, output.read_bytes())
    if to != "npy":
        assert [int(record["id"]) for record in got] == list(range(ROWS))
    assert f"{ROWS} rows, {ROWS} scored, 0 failed" in score.said


@pytest.mark.parametrize("to", FORMATS)
def test_error_records_keep_their_place_in_every_format(score, tmp_path, to):
    lines = [json.dumps(row) for row in make_rows(ROWS)]
    lines[5], lines[11] = "{spoilt", ""
    path = tmp_path / "in.ndjson"
    path.write_text("\n".join(lines))
    output = score(path, to)
    got = read(output)
    assert len(got) == ROWS
    assert f"{ROWS - 2} scored, 2 failed" in score.said
    if to == "npy":
        assert np.flatnonzero(np.isnan([record["value"] for record in got])).tolist() == [5, 11]
        got = read(output.with_name("out.npy.errors.ndjson"))
        assert [record["line"] for record in got] == [6, 12]
        return
    assert [i for i, record in enumerate(got) if record.get("error")] == [5, 11]
    assert [got[i]["line"] for i in (5, 11)] == [6, 12]
    assert {got[i]["code"] for i in (5, 11)} == {"invalid_json"}


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("task", ["probabilities", "top_k", "log_probs", "sample", "perplexity"])
def test_every_task_into_every_format(score, task, to):
    rows = make_rows(7)
    rows[3]["input"][0] = 1e39
    options = {"top_k": ["--k", "3"], "sample": ["--num-samples", "2", "--seed", "5"]}
    got = read(score(rows, to, *options.get(task, []), task=task))
    assert len(got) == 7
    states = np.array([row["input"] for row in rows[:3]], dtype=np.float32)
    full = np.exp(HIERARCHICAL.log_probs(make_model(), states))
    first = got[0]
    match task:
        case "log_probs":
            found = np.exp(first["value" if to == "npy" else "log_probs"])
            np.testing.assert_allclose(found, full[0], rtol=1e-5)
        case "top_k":
            assert first["targets"] == np.argsort(-full[0])[:3].tolist()
            np.testing.assert_allclose(first["probabilities"], -np.sort(-full[0])[:3], rtol=1e-5)
        case "sample":
            np.testing.assert_allclose(first["probabilities"], full[0][first["targets"]], rtol=1e-5)
        case "probabilities":
            found = first["value" if to == "npy" else "probabilities"]
            assert found == pytest.approx(full[0, rows[0]["target"]], rel=1e-5)
        case _:
            assert np.exp(first["log_prob"]) == pytest.approx(full[0, rows[0]["target"]], rel=1e-5)


@pytest.mark.parametrize("to", ["ndjson", "csv", "parquet", "arrow"])
@pytest.mark.parametrize("of", ["ndjson", "parquet", "arrow", "csv", "npy"])
def test_lists_of_targets(score, of, to):
    rows = make_rows(5)
    for row in rows:
        row["targets"] = [row.pop("target"), 0]
    got = read(score(rows, to, of=of))
    first = expected([{**row, "target": row["targets"][0]} for row in rows])
    np.testing.assert_allclose([record["log_prob"][0] for record in got], first, atol=1e-5)


@pytest.mark.parametrize("of", ["ndjson", "csv", "parquet", "arrow"])
def test_labels_are_targets(score, of):
    rows = make_rows(ROWS)
    wanted = expected(rows)
    for row in rows:
        row["target"] = LABELS[row["target"]]
    rows[2]["target"] = "unheard"
    got = read(score(rows, of=of))
    assert got[2]["code"] == "unknown_label"
    del got[2]
    np.testing.assert_allclose([r["log_prob"] for r in got], np.delete(wanted, 2), atol=1e-5)


@pytest.mark.parametrize("of", ["ndjson", "csv"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_byte_order_mark_and_either_line_end_change_nothing(score, tmp_path, of, end):
    rows = make_rows(3)
    for files in (1, 2):  # of the same rows, each with a mark
        folder = tmp_path / str(files)
        folder.mkdir()
        for name in range(files):
            path = write(folder / f"{name}.{of}", rows)
            path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", end))
        got = read(score(folder, "ndjson"))
        np.testing.assert_allclose(
            [record["log_prob"] for record in got], [*expected(rows)] * files, atol=1e-5
        )
        assert [int(record["id"]) for record in got] == [0, 1, 2] * files
        for path in tmp_path.glob("out.*"):
            path.unlink()


def test_the_only_row_after_a_mark_says_how_rows_name_targets(score, tmp_path):
    path = tmp_path / "one.ndjson"
    (row,) = make_rows(1)
    path.write_text("\ufeff" + json.dumps({"id": 0, "input": row["input"]}), "utf-8")
    (record,) = read(score(path, "ndjson", task="probabilities"))
    assert len(record["probabilities"]) == TARGETS


@pytest.mark.parametrize("of", ["ndjson", "csv"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_an_input_of_another_encoding_is_refused_at_once(score, tmp_path, of, encoding):
    path = write(tmp_path / f"rows.{of}", make_rows(3))
    path.write_text(path.read_text("utf-8"), encoding)
    output = score(path, "ndjson", expect=2)
    kind = encoding[:6].upper()
    assert f"rows.{of}: expected UTF-8 text, got {kind}: save it as UTF-8" in score.said
    assert not output.exists()


def test_a_number_in_csv_is_a_label_only_with_the_option(score):
    rows = make_rows(2)
    assert read(score(rows, of="csv", to="ndjson"))[0]["log_prob"] < 0
    got = read(score(rows, "csv", "--labels", of="csv", expect=1))
    assert {record["code"] for record in got} == {"unknown_label"}


def test_a_folder_of_files_is_read_by_name(score, tmp_path):
    rows = make_rows(ROWS)
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / "b.ndjson", rows[13:])
    write(folder / "a.ndjson", rows[:13])
    (folder / "notes.txt").write_text("no rows")
    got = read(score(folder))
    np.testing.assert_allclose([record["log_prob"] for record in got], expected(rows), atol=1e-5)


@pytest.mark.parametrize("of", FORMATS)
def test_an_output_without_an_extension_is_a_folder(made, tmp_path, of):
    rows = make_rows(ROWS)
    path, output = write(tmp_path / f"in.{of}", rows), tmp_path / "out"
    arguments = ["score", str(made), str(path), str(output), "--task", "target_log_prob", *SMALL]
    assert run(arguments) == 0
    assert sorted(p.name for p in output.iterdir()) == [f"part-0000{i}.{of}" for i in range(3)]
    got = [record for part in sorted(output.iterdir()) for record in read(part)]
    name = "value" if of == "npy" else "log_prob"
    np.testing.assert_allclose([record[name] for record in got], expected(rows), atol=1e-5)
    expect_summary_of(output, b"".join(part.read_bytes() for part in sorted(output.iterdir())))
    assert run(arguments) == 2
    assert run([*arguments, "--resume"]) == 0
    (tmp_path / "out.summary.json").unlink()
    assert run([*arguments, "--resume"]) == 2


def test_columns_may_have_other_names(score):
    rows = [{"key": r["id"], "state": r["input"], "next": r["target"]} for r in make_rows(4)]
    got = read(score(rows, "ndjson", "--columns", "id=key,input=state,target=next"))
    assert [record["id"] for record in got] == [0, 1, 2, 3]
    assert all("log_prob" in record for record in got)


@pytest.mark.parametrize("of", ["ndjson", "parquet"])
def test_the_input_may_be_columns(score, tmp_path, of):
    rows = make_rows(ROWS)
    flat = [{"target": r["target"], **{f"x{i}": x for i, x in enumerate(r["input"])}} for r in rows]
    path = tmp_path / f"flat.{of}"
    if of == "parquet":
        pq.write_table(pa.Table.from_pylist(flat), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in flat))
    got = read(score(path, "ndjson", "--columns", f"x0..x{HIDDEN - 1}"))
    np.testing.assert_allclose([record["log_prob"] for record in got], expected(rows), atol=1e-5)


def test_an_empty_input_has_no_records(score, tmp_path):
    empty = tmp_path / "in.ndjson"
    empty.touch()
    for to in FORMATS:
        assert read(score(empty, to)) == []


def test_one_malformed_line_in_a_hundred_thousand_fails_one_row(score, tmp_path):
    line = json.dumps(make_rows(1)[0]).encode() + b"\n"
    path = tmp_path / "in.ndjson"
    path.write_bytes(line * 54_321 + b'{"id": 1, "inp\n' + line * 45_678)
    output = score(path, "ndjson", "--batch", "8192", "--shard-rows", "65536")
    assert "100,000 rows, 99,999 scored, 1 failed" in score.said
    lines = output.read_bytes().splitlines()
    assert json.loads(lines[54_321])["line"] == 54_322
    assert len(set(lines)) == 2


# --- errors in place, by format -----------------------------------------------------------------


def test_invalid_csv_lines(score, tmp_path):
    rows = make_rows(8)
    path = write(tmp_path / "in.csv", rows)
    lines = path.read_text().splitlines()
    lines[1] = lines[1].replace(",", ",,", 1)
    lines[2] = '"' + lines[2]
    lines[3] = ""
    lines[4] = ",".join([*lines[4].split(",")[:-1], "nan"])
    lines[5] = ",".join([*lines[5].split(",")[:-1], "much"])
    lines[6] = ",".join(["6", "99", *lines[6].split(",")[2:]])
    path.write_text("\n".join(lines))
    got = read(score(path))
    codes = ["invalid_query"] * 5 + ["target_out_of_range", None, None]
    assert [record.get("code") for record in got] == codes
    assert [record.get("line") for record in got] == [2, 3, 4, 5, 6, 7, None, None]


@pytest.mark.parametrize("kind", [pa.list_(pa.float64()), pa.large_list(pa.float32())])
def test_invalid_parquet_rows(score, tmp_path, kind):
    rows = make_rows(9)
    inputs = [row["input"] for row in rows]
    targets = [row["target"] for row in rows]
    inputs[1] = inputs[1][:-1]
    inputs[2] = [*inputs[2], 1.0]
    inputs[3] = [float("nan")] * HIDDEN
    inputs[4] = None
    inputs[5] = [None, *inputs[5][1:]]
    targets[6], targets[7] = TARGETS, None
    path = tmp_path / "in.parquet"
    columns = {"input": pa.array(inputs, kind), "target": pa.array(targets, pa.int32())}
    pq.write_table(pa.table(columns), path, row_group_size=3)
    got = read(score(path))
    assert [record.get("code") for record in got] == [
        None, *["invalid_query"] * 5, "target_out_of_range", "invalid_query", None
    ]  # fmt: skip
    good = [rows[0], rows[8]]
    np.testing.assert_allclose([got[0]["log_prob"], got[8]["log_prob"]], expected(good), atol=1e-5)


def test_arrow_stream_files_are_read(score, tmp_path):
    made = table(make_rows(ROWS))
    path = tmp_path / "in.arrow"
    with pa.ipc.new_stream(path, made.schema) as writer:
        writer.write_table(made, max_chunksize=3)
    assert len(read(score(path))) == ROWS


@pytest.mark.parametrize("of", ["ndjson", "npy"])
@pytest.mark.parametrize("task", ["target_log_prob", "top_k", "log_probs", "sample", "perplexity"])
def test_logits_that_overflow_are_the_error_of_their_row(score, of, task):
    rows = make_rows(ROWS)
    output = score(rows, of=of, task=task)
    clean = read(output)
    output.unlink()
    rows[6]["input"] = [3e38] * HIDDEN
    got = read(score(rows, of=of, task=task))
    assert got[6]["code"] == "logits_overflow"
    del got[6], clean[6]
    assert got == clean


def test_a_too_long_line_fails_only_its_row(score, tmp_path, monkeypatch):
    monkeypatch.setattr("hsoftmax.scoring.formats.line_reader.MAX_LINE_BYTES", 4096)
    good = json.dumps(make_rows(1)[0])
    path = tmp_path / "in.ndjson"
    path.write_text("\n".join([good, good + " " * 10_000, good]))
    assert [record.get("code") for record in read(score(path))] == [None, "too_large", None]


# --- perplexity ---------------------------------------------------------------------------------


def test_the_held_out_perplexity_equals_the_trainers(tmp_path, capsys):
    made = export_first_example(tmp_path / "repository")
    hidden, target = read_heldout()
    array = np.zeros(len(target), [("input", "f4", hidden.shape[1]), ("target", "i8")])
    array["input"], array["target"] = hidden, target
    np.save(tmp_path / "heldout.npy", array)
    output = tmp_path / "scored.parquet"
    arguments = [str(made.path), str(tmp_path / "heldout.npy"), str(output)]
    assert run(["score", *arguments, "--task", "perplexity"]) == 0
    summary = json.loads((tmp_path / "scored.parquet.summary.json").read_text())
    assert summary["corpus"]["perplexity"] == pytest.approx(PERPLEXITY, rel=1e-6)
    assert summary["corpus"]["words"] == len(target)
    assert f"perplexity {PERPLEXITY:.4f}" in capsys.readouterr().out


def test_rows_of_a_sequence_need_not_be_adjacent(score):
    rows = make_rows(ROWS)
    for i, row in enumerate(rows):
        row["sequence"] = f"s{i % 4}"
    output = score(rows, "ndjson", "--log-base", "2", task="perplexity")
    sums = read(output.with_name("out.ndjson.sequences.ndjson"))
    assert [record["sequence"] for record in sums] == ["s0", "s1", "s2", "s3"]
    log_prob = expected(rows)
    for i, record in enumerate(sums):
        assert record["log_prob"] == pytest.approx(log_prob[i::4].sum() / np.log(2), rel=1e-5)
        assert record["perplexity"] == pytest.approx(np.exp(-log_prob[i::4].mean()), rel=1e-5)
    assert "to base 2" in score.said


def test_an_unknown_label_is_an_error_or_excluded(score):
    rows = make_rows(6)
    rows[4]["target"] = "unheard"
    got = read(score(rows, task="perplexity"))
    assert got[4]["code"] == "unknown_label"
    assert "5 scored, 1 failed" in score.said
    got = read(score(rows, "csv", "--oov", "exclude", task="perplexity"))
    assert (got[4]["log_prob"], got[4]["oov"]) == (None, True)
    assert "6 scored, 0 failed" in score.said
    assert "1 out of vocabulary" in score.said


@pytest.mark.parametrize("to", ["parquet", "ndjson"])
@pytest.mark.parametrize("of", ["npy", "parquet", "arrow"])
@pytest.mark.parametrize("largest", [2**63 - 1, 2**64 - 1])
def test_ids_of_64_bits_are_exact(score, tmp_path, of, to, largest):
    rows = make_rows(5)
    path = write(tmp_path / f"in.{of}", rows)
    ids = np.array([largest - i for i in range(5)], dtype=np.uint64)
    if largest < 2**63:
        ids = ids.astype(np.int64)
    with_ids[of](path, ids)
    got = read(score(path, to))
    assert [int(record["id"]) for record in got] == ids.tolist()


def test_numeric_and_text_ids_may_be_mixed_across_files(score, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    rows = make_rows(8)
    write(folder / "a.npy", rows[:4])
    write(folder / "b.npy", rows[4:])
    array = np.load(folder / "b.npy")
    np.save(folder / "b.npy", array.astype([("id", "U4"), *array.dtype.descr[1:]]))
    got = read(score(folder, "parquet"))
    assert [record["id"] for record in got] == [str(i) for i in range(8)]


def _npy_ids(path, ids):
    array = np.load(path)
    typed = array.astype([("id", ids.dtype), *array.dtype.descr[1:]])
    typed["id"] = ids
    np.save(path, typed)


def _arrow_ids(path, ids):
    made = pa.ipc.open_file(path).read_all()
    made = made.set_column(0, "id", pa.array(ids))
    with pa.ipc.new_file(path, made.schema) as writer:
        writer.write_table(made)


def _parquet_ids(path, ids):
    pq.write_table(pq.read_table(path).set_column(0, "id", pa.array(ids)), path)


with_ids = {"npy": _npy_ids, "arrow": _arrow_ids, "parquet": _parquet_ids}
