"""Rows that run alone: the same bits among any others, and an error for each wrong one."""

import numpy as np
import pytest

from hsoftmax.exporter import EncoderOptions
from hsoftmax.exporter.encoder import write_encoder
from hsoftmax.runtime.encoder import LoadedEncoder
from hsoftmax.runtime.row_encoder import MAX_POSITIONS, RowEncoder
from hsoftmax.runtime.sessions import open_session
from tests import encoder_models
from tests.encoder_models import HIDDEN, gru_states

ROWS = [[3, 1, 4], [1], [5, 9, 2, 6], [49, 0], [3, 1, 4]]


class OnlySession:
    """A session that runs a graph, and fails at rows of more than 100 positions."""

    def __init__(self, path) -> None:
        self._session = open_session(path)

    def run(self, feeds) -> list[np.ndarray]:
        if feeds["ids"].shape[1] > 100:
            raise RuntimeError("too long")
        return self._session.run(None, dict(feeds))


@pytest.fixture
def make(tmp_path):
    """Function that returns the encoder of rows of this ONNX model."""

    def make(proto, **options) -> RowEncoder:
        path = encoder_models.save(proto, tmp_path / "model.onnx")
        description = write_encoder(tmp_path, EncoderOptions(path, **options), HIDDEN)
        session = OnlySession(tmp_path / description.file)
        return RowEncoder(LoadedEncoder(description, session))  # type: ignore[arg-type]

    return make


def test_a_row_has_the_same_bits_alone_and_among_others(make):
    encoder = make(encoder_models.gru(lengths=True), lengths="lengths")
    together = encoder([{"ids": row} for row in ROWS])
    for row, state in zip(ROWS, together, strict=True):
        [alone] = encoder([{"ids": row}])
        np.testing.assert_array_equal(state, alone)
        np.testing.assert_allclose(state, gru_states(row)[-1], atol=1e-5)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"ids": [50]}, "input.ids: expected ids from 0 to 49, got 50"),
        ({"ids": 3}, "input.ids: expected a list of numbers, got shape []"),
        ({"tokens": [1]}, "input: expected ids, got tokens"),
        ({}, "input: expected ids, got none"),
        (
            {"ids": [1] * 101},
            "input: expected a row that the encoder can run, got one that it cannot",
        ),
        ({"ids": [1] * (MAX_POSITIONS + 1)}, "input: expected at most 65536 positions, got 65537"),
    ],
)
def test_a_wrong_row_is_an_error_of_its_own(make, row, message):
    good, bad, other = make(encoder_models.gru())([{"ids": ROWS[0]}, row, {"ids": ROWS[0]}])
    assert bad == message
    np.testing.assert_array_equal(good, other)


def test_a_row_has_one_state(make):
    encoder = make(encoder_models.gru(outputs=["states"]), position="each")
    [message] = encoder([{"ids": [1]}])
    assert message == (
        "input: expected an encoder of one state a row, got one of a state a position: "
        "send the row as a query, or export the encoder with --encoder-position last"
    )
