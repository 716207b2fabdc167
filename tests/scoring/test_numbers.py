"""Texts that are numbers are those that JSON takes for numbers, in every reader of text."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsoftmax.scoring.numbers import parse_integer, parse_number, parse_numbers

NO_NUMBERS = ["1_0", "+3", "007", "٣", "\uff11", "0x10", ".5", "1.", "1e", "nan", "inf", "-", "",
              "--1", "1 0", "1,5", "true", "null", "[1]", "²"]  # fmt: skip
INTEGERS = ["0", "-0", "7", "-12", "9" * 15]
NUMBERS = ["0.5", "-1.25e-3", "1e5", "1E+05", "5.0"]


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_other_notations_are_no_numbers(text):
    assert parse_integer(text) is None
    assert parse_number(text) is None
    assert parse_numbers([text]) is None
    assert parse_numbers(["1", text]) is None


@pytest.mark.parametrize("text", INTEGERS)
def test_an_integer_is_one_in_every_reader(text):
    assert parse_integer(text) == parse_number(text) == json.loads(text)
    assert parse_numbers([text]) == [json.loads(text)]


@pytest.mark.parametrize("text", NUMBERS)
def test_a_fraction_or_an_exponent_makes_a_number_that_is_no_integer(text):
    assert parse_integer(text) is None
    assert parse_number(text) == json.loads(text)
    assert parse_numbers([text, "1"]) == [json.loads(text), 1]


@pytest.mark.parametrize("text", [" 5", "5 ", "\t5"])
def test_white_space_separates_numbers_but_is_no_part_of_one(text):
    assert parse_integer(text) is None
    assert parse_number(text) is None
    assert parse_numbers([text]) == [5]


def test_what_is_beyond_64_bits_is_said_so():
    assert parse_integer("1" * 19) is None
    assert parse_number("1e400") == math.inf
    assert parse_numbers(["1e400"]) is None


@given(st.text(alphabet="0123456789+-._eE ٣\uff15nainf", max_size=6))
def test_text_is_a_number_exactly_if_json_says_so(text):
    try:
        wanted = (
            json.loads(text, parse_constant=lambda name: None) if text.strip() == text else None
        )
    except ValueError:
        wanted = None
    assert parse_number(text) == wanted
