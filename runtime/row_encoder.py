"""Turns single rows into hidden states: texts, words, or an encoder's inputs by name.

Batch scoring, streams and jobs call it. Each row runs alone, so that its state is the same bit for
bit in any batch and a wrong row is an error of its own.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hsoftmax.models.arrays import Float32

from .encoder import LoadedEncoder, encode
from .encoder_inputs import EncoderError
from .tokenizer import TokenizerError
from .tokens import TextRow
from .weights_guard import WeightsChanged

MAX_POSITIONS = 65_536  # of one row

_PLACE = re.compile(r"inputs(?P<name>\.\S+)?(?: row 0)?: ")

NamedRow = Mapping[str, object]


@dataclass(frozen=True)
class RowEncoder:
    """Runs an encoder for one row after the other. Several threads may call it."""

    encoder: LoadedEncoder

    @property
    def takes_text(self) -> bool:
        """True if there is a tokenizer."""
        return self.encoder.tokenizer is not None

    @property
    def takes_named(self) -> bool:
        """True: every encoder takes its inputs by name."""
        return True

    def __call__(self, rows: Sequence[TextRow | NamedRow]) -> list[Float32 | str]:
        """Return for each row its state, [hidden_size], or the sentence of its error."""
        return [self._state(row) for row in rows]

    def _state(self, row: TextRow | NamedRow) -> Float32 | str:
        if self.encoder.description.position == "each":
            return (
                "input: expected an encoder of one state a row, got one of a state a position: "
                "send the row as a query, or export the encoder with --encoder-position last"
            )
        try:
            states = encode(self.encoder, self._inputs(row), max_positions=MAX_POSITIONS)
        except (EncoderError, TokenizerError) as error:
            return _PLACE.sub(r"input\g<name>: ", str(error), count=1)
        except WeightsChanged:
            raise
        except Exception:  # the runtime's, of any type
            return "input: expected a row that the encoder can run, got one that it cannot"
        state: Float32 = states[0]
        return state

    def _inputs(self, row: TextRow | NamedRow) -> Mapping[str, Sequence[object]]:
        if isinstance(row, Mapping):
            return {name: [value] for name, value in row.items()}
        assert self.encoder.tokenizer is not None
        return self.encoder.tokenizer.inputs([row])
