"""`--columns` names the columns of an input; its work is bounded whatever a client sends."""

from time import process_time

import pytest

from hsoftmax.scoring import CallError
from hsoftmax.scoring.formats.columns import input_columns, parse_columns


@pytest.mark.parametrize(
    ("texts", "inputs"),
    [
        (["h0..h3"], ("h0", "h1", "h2", "h3")),
        (["a, b", "x9..x11"], ("a", "b", "x9", "x10", "x11")),
        (["input=v1..v2,id=key"], ("v1", "v2")),
        (["0..2"], ("0", "1", "2")),
        (["a1..b2"], ("a1..b2",)),  # two stems are no range
        (["h\u0663..h\u0665"], ("h\u0663..h\u0665",)),  # nor are digits of another script
        (["h0..h" + "9" * 10], ("h0..h" + "9" * 10,)),
    ],
)
def test_names_and_ranges(texts, inputs):
    assert parse_columns(texts).input == inputs


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a,,b", "columns: expected names or role=name, got ''"),
        ("id=", "columns: expected names or role=name, got 'id='"),
        ("h3..h0", "columns: expected a range that ascends, got 'h3..h0'"),
        ("h0..h100000", "columns: expected at most 100000 for the input, got more"),
        (",".join(["h0..h60000"] * 2), "columns: expected at most 100000 for the input, got more"),
        ("1" * 1001, "columns: expected names of at most 1000 characters, got 1001"),
        ("1" * 1_000_000, "columns: expected names of at most 1000 characters, got 1000000"),
    ],
)
def test_more_than_any_input_has_is_refused(text, sentence):
    with pytest.raises(CallError, match=f"^{sentence}$"):
        parse_columns([text])


def test_wide_inputs_are_matched_in_linear_time():
    names = [f"h{i}" for i in range(100_000)]
    columns = parse_columns(["h0..h99999"])
    started = process_time()
    assert len(input_columns(columns, names[::-1], 100_000)) == 100_000
    assert process_time() - started < 2
