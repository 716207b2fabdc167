"""Batches of an encoder's rows: each row once, little padding, and states in the order of rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsoftmax import bundle
from hsoftmax.runtime.encoder_batches import EncoderBatch, join_states, make_batches
from hsoftmax.runtime.encoder_inputs import EncoderError, read_rows

HIDDEN = 2
LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=30)
POSITIONS = [None, "first", "last", "each"]


def port(name: str, *shape: int | str, dtype: bundle.Dtype = "int64") -> bundle.Port:
    return bundle.Port(name=name, dtype=dtype, shape=("batch", *shape))


IDS, MASK = port("ids", "length"), port("mask", "length", dtype="float32")
TYPES, SIZES, USER = port("types", "length"), port("sizes", dtype="int32"), port("user")


def encoder(*inputs: bundle.Port, position=None, **options) -> bundle.Encoder:
    axes = () if position is None else ("length",)
    output = port("hidden", *axes, HIDDEN, dtype="float32")
    return bundle.Encoder(
        file="encoder.onnx", weights=None, inputs=inputs, outputs=(output,), position=position,
        **options,
    )  # fmt: skip


def rows_of(lengths: list[int]) -> list[list[int]]:
    """Rows whose ids say the row and the position: 100 * row + position + 1."""
    return [[100 * row + i + 1 for i in range(length)] for row, length in enumerate(lengths)]


def outputs_of(batch: EncoderBatch, position: str | None) -> np.ndarray:
    """A model without state: the state of a position is its id, that of a row the largest one."""
    ids = batch.feeds["ids"].astype(np.float32)
    states = np.stack([ids, -ids], axis=-1)
    return states if position else np.stack([ids.max(axis=1), -ids.max(axis=1)], axis=-1)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("padded", [False, True])
@given(lengths=LENGTHS)
def test_states_come_in_the_order_of_rows_and_positions(position, padded, lengths):
    described = (
        encoder(IDS, MASK, mask="mask", position=position)
        if padded
        else encoder(IDS, position=position)
    )
    rows = rows_of(lengths)
    batches = make_batches(described, read_rows(described, {"ids": rows}))
    got = join_states(described, batches, [outputs_of(batch, position) for batch in batches])
    chosen = {
        None: slice(-1, None),
        "first": slice(1),
        "last": slice(-1, None),
        "each": slice(None),
    }
    wanted = [one for row in rows for one in row[chosen[position]]]
    np.testing.assert_array_equal(got, np.stack([wanted, np.negative(wanted)], axis=-1))


@given(lengths=LENGTHS)
def test_padding_is_at_most_as_large_as_the_rows(lengths):
    described = encoder(IDS, MASK, SIZES, mask="mask", lengths="sizes")
    batches = make_batches(described, read_rows(described, {"ids": rows_of(lengths)}))
    assert sorted(row for batch in batches for row in batch.rows) == list(range(len(lengths)))
    for batch in batches:
        ids, mask = batch.feeds["ids"], batch.feeds["mask"]
        assert ids.size <= 2 * batch.lengths.sum()
        assert mask.dtype == np.float32
        np.testing.assert_array_equal(mask, ids > 0)
        assert batch.feeds["sizes"].dtype == np.int32
        np.testing.assert_array_equal(batch.feeds["sizes"], batch.lengths)


@given(lengths=LENGTHS)
def test_without_mask_and_lengths_nothing_is_padded(lengths):
    batches = make_batches(encoder(IDS), read_rows(encoder(IDS), {"ids": rows_of(lengths)}))
    assert len(batches) == len(set(lengths))
    for batch in batches:
        assert (batch.feeds["ids"] > 0).all()


def test_inputs_without_positions_stand_beside_sequences():
    described = encoder(IDS, USER)
    batches = make_batches(
        described, read_rows(described, {"ids": [[1], [2, 3], [4]], "user": [7, 8, 9]})
    )
    assert [batch.feeds["user"].tolist() for batch in batches] == [[7, 9], [8]]


def test_sequences_of_a_row_may_have_lengths_of_their_own_without_a_mask():
    described = encoder(IDS, TYPES)
    inputs = {"ids": [[1], [2]], "types": [[1, 1], [1, 1]]}
    [batch] = make_batches(described, read_rows(described, inputs))
    assert (batch.feeds["ids"].shape, batch.feeds["types"].shape) == ((2, 1), (2, 2))


def test_under_a_mask_the_sequences_of_a_row_have_one_length():
    described = encoder(IDS, TYPES, MASK, mask="mask")
    with pytest.raises(EncoderError, match=r"inputs row 1: .*, got 1 in ids, 2 in types"):
        read_rows(described, {"ids": [[1], [2]], "types": [[1], [1, 1]]})


def test_a_row_that_an_input_lacks_is_refused():
    with pytest.raises(EncoderError, match=r"as many rows in each, got 2 in ids, 1 in user"):
        read_rows(encoder(IDS, USER), {"ids": [[1], [2]], "user": [1]})


@pytest.mark.parametrize(
    ("dtype", "row", "message"),
    [
        ("int32", 2**31, "expected integers within int32"),
        ("int64", True, "expected integers, got something else"),
        ("float32", 1e39, "expected finite numbers within float32"),
        ("float32", "1", "expected numbers, got something else"),
        ("bool", 1, "expected booleans, got something else"),
    ],
)
def test_a_number_of_another_type_is_refused(dtype, row, message):
    described = encoder(port("one", dtype=dtype))
    with pytest.raises(EncoderError, match=message):
        read_rows(described, {"one": [row]})


def test_rows_of_vectors_have_the_sizes_of_the_input():
    described = encoder(port("frames", "length", 3, dtype="float32"))
    [batch] = make_batches(described, read_rows(described, {"frames": [[[1, 2, 3], [4, 5, 6]]]}))
    assert batch.feeds["frames"].shape == (1, 2, 3)
    with pytest.raises(EncoderError, match=r"expected shape \[length, 3\], got shape \[1, 2\]"):
        read_rows(described, {"frames": [[[1, 2]]]})


def test_a_state_that_is_not_finite_is_refused():
    described = encoder(IDS)
    batches = make_batches(described, read_rows(described, {"ids": [[1], [2]]}))
    with pytest.raises(EncoderError, match="inputs row 1: the encoder's state is not a finite"):
        join_states(described, batches, [np.array([[1, 2], [np.nan, 3]], dtype=np.float32)])
