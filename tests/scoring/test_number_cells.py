"""Targets, inputs and ids that only look like numbers, in every input format."""

import datetime
import decimal
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hsoftmax.scoring import BundleInfo, Columns, RowRequirements, open_inputs, row_requirements
from hsoftmax.scoring.task import Task

LABELS = ("gov", "1_0", "007", " 5", "٣", "+3", "5.0", "1e2", "nan", "true", "12", "z")
INFO = BundleInfo("words", "d" * 64, 2, len(LABELS), frozenset({"target_log_prob"}), LABELS)
UNLABELLED = BundleInfo("words", "d" * 64, 2, 12, INFO.graphs)


@pytest.fixture
def parse(tmp_path):
    """Returns a function that writes a file's content and returns its rows."""

    def parse(name, content, info=INFO, *, labelled=False):
        path = tmp_path / name
        match content:
            case str():
                path.write_text(content, "utf-8")
            case pa.Table() if path.suffix == ".parquet":
                pq.write_table(content, path)
            case pa.Table():
                with pa.ipc.new_file(path, content.schema) as writer:
                    writer.write_table(content)
            case _:
                np.save(path, content)
        reader = open_inputs([path], Columns(), info, labelled=labelled)
        raw_batch = reader.read(reader.begin(), 100)
        requirements: RowRequirements = row_requirements(Task("target_log_prob"), False, info)
        rows = reader.parse(raw_batch, requirements)
        reader.close()
        return rows

    return parse


def outcomes(rows) -> list[int | str]:
    """Returns each row's target, or its error."""
    targets = iter(rows.target.tolist())
    return [str(rows.row_errors[i]) if i in rows.row_errors else next(targets)
            for i in range(len(rows))]  # fmt: skip


def csv_of(*targets: str) -> str:
    return "h0,h1,target\n" + "".join(f"0.5,1,{target}\n" for target in targets)


def table_of(**columns) -> pa.Table:
    rows = len(next(iter(columns.values())))
    return pa.table({"input": pa.array([[0.5, 1.0]] * rows), **columns})


# --- targets ------------------------------------------------------------------------------------


def test_a_target_in_csv_is_a_number_only_if_it_is_one_in_json(parse):
    rows = parse("in.csv", csv_of("1_0", "007", " 5", "٣", "+3", "nan", "true", "1", "-0"))
    assert outcomes(rows) == [1, 2, 3, 4, 5, 8, 9, 1, 0]


def test_an_integer_in_csv_is_a_target_and_not_a_label(parse):
    assert outcomes(parse("in.csv", csv_of("11")))[0] == 11
    assert outcomes(parse("in.csv", csv_of("12")))[0] == "target: expected 0 to 11, got 12"
    assert outcomes(parse("in.csv", csv_of("12"), labelled=True)) == [10]


def test_a_number_that_is_no_integer_is_a_label_first(parse):
    assert outcomes(parse("in.csv", csv_of("5.0", "1e2", "4.0", "1e1"))) == [6, 7, 4, 10]


@pytest.mark.parametrize("info", [INFO, UNLABELLED])
def test_an_integral_float_is_a_target_in_csv(parse, info):
    assert outcomes(parse("in.csv", csv_of("4.0", "", "4.5", "40.0", "1e400"), info)) == [
        4,
        "target: expected a value, got none",
        "target: expected an integer, got 4.5",
        "target: expected 0 to 11, got 40.0",
        "target: expected an integer, got inf",
    ]


@pytest.mark.parametrize("text", ["1_1", "+1", " 1", "1 ", "٢", "08", "0x1", "1.", ".5"])
def test_without_labels_other_notations_are_errors(parse, text):
    (got,) = outcomes(parse("in.csv", csv_of(text), UNLABELLED))
    assert got == "target: expected an integer, as words has no labels, got text"


def test_integral_floats_are_targets_in_json(parse):
    lines = [{"input": [0.5, 1], "target": target} for target in (4.0, 4.5, "5.0", "4.0", 40.0)]
    rows = parse("in.ndjson", "\n".join(map(json.dumps, lines)))
    assert outcomes(rows) == [
        4, "target: expected an integer, got 4.5", 6, "target: no label '4.0' in words",
        "target: expected 0 to 11, got 40.0",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()])
@pytest.mark.parametrize("name", ["in.parquet", "in.arrow"])
def test_a_float_column_of_targets_has_integers(parse, name, kind):
    column = pa.array([4.0, None, 4.5, 40.0, float("nan"), float("inf"), 0.0], kind)
    assert outcomes(parse(name, table_of(target=column))) == [
        4, "target: expected a value, got none", "target: expected an integer, got 4.5",
        "target: expected 0 to 11, got 40.0", "target: expected an integer, got nan",
        "target: expected 0 to 11, got inf", 0,
    ]  # fmt: skip


def test_lists_of_float_targets_have_integers(parse):
    rows = parse("in.parquet", table_of(targets=pa.array([[4.0, 1.0], [4.5]])))
    assert rows.target.tolist() == [4, 1]
    assert str(rows.row_errors[1]) == "target: expected an integer, got 4.5"
    rows = parse("in.csv", 'h0,h1,targets\n1,2,"[4.0, 1]"\n')
    assert rows.target.tolist() == [4, 1]


def test_a_float_field_of_targets_has_integers(parse):
    array = np.zeros(3, dtype=[("input", "f4", 2), ("target", "f8")])
    array["target"] = [4, np.nan, 11]
    rows = parse("in.npy", array)
    assert outcomes(rows) == [4, "target: expected an integer, got nan", 11]


# --- inputs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["1_0", "\uff11", "+3", ".5", "1.", "007", "nan", "inf", "a"])
def test_a_cell_of_the_input_is_a_number_only_if_it_is_one_in_json(parse, cell):
    rows = parse("in.csv", f"h0,h1,target\n0.5,{cell},1\n0.5,1,1\n")
    assert outcomes(rows) == [f"input position 1: expected a number, got {cell!r}", 1]


def test_white_space_around_a_number_of_the_input_means_nothing(parse):
    rows = parse("in.csv", "h0,h1,target\n0.5, -1e2,1\n")
    assert rows.hidden.tolist() == [[0.5, -100]]


@pytest.mark.parametrize(
    ("cells", "got"),
    [
        (",1", "input position 0: expected a number, got an empty cell"),
        ('"1,2",1', "input position 0: expected a number, got '1,2'"),
        ("1e400,1", "input position 0: expected a number, got 1e400, which is beyond float64"),
        ("1,1e300", "input position 1: expected a finite number within float32, got 1e+300"),
    ],
)
def test_an_error_of_the_input_says_what_was_there(parse, cells, got):
    assert outcomes(parse("in.csv", f"h0,h1,target\n{cells},1\n")) == [got]


@pytest.mark.parametrize(
    "columns",
    [
        {"input": pa.array([[1.0, None], [float("nan"), 1.0], [1e300, 1.0]])},
        {"input": pa.array([[1.0, None], [float("nan"), 1.0], [1e300, 1.0]],
                           pa.list_(pa.float64(), 2))},
        {"h0": pa.array([1.0, float("nan"), 1e300]), "h1": pa.array([None, 1.0, 1.0])},
    ],
)  # fmt: skip
def test_a_null_in_the_input_is_told_as_null(parse, columns):
    rows = parse("in.parquet", pa.table({**columns, "target": pa.array([1, 1, 1])}))
    wanted = "expected a finite number within float32, got"
    assert outcomes(rows) == [
        f"input position 1: {wanted} null",
        f"input position 0: {wanted} nan",
        f"input position 0: {wanted} 1e+300",
    ]


# --- ids ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["in.parquet", "in.arrow"])
def test_ids_that_are_no_integers_are_kept_as_text(parse, name):
    day, noon = datetime.date(2026, 1, 31), datetime.datetime(2026, 1, 31, 12)
    one = pa.array([1], pa.int64())
    for column, text in (
        (pa.array([1.5]), "1.5"),
        (pa.array([5.0]), "5"),
        (pa.array([day]), "2026-01-31"),
        (pa.array([noon], pa.timestamp("ms")), "2026-01-31 12:00:00.000"),
        (pa.array([noon], pa.timestamp("ms", "No/Zone")), "2026-01-31 12:00:00.000Z"),
        (pa.array([decimal.Decimal("1.50")]), "1.50"),
        (pa.array([datetime.time(12)], pa.time64("us")), "12:00:00.000000"),
    ):
        rows = parse(name, table_of(id=column, sequence=column, target=one))
        assert (list(rows.ids), list(rows.sequences)) == ([text], [text])
