"""Opens the encoder of a bundle and runs it: rows of inputs by name become hidden states.

The exporter's checks, batch scoring and the service call it. The service runs the batches itself,
through its engine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hsoftmax.bundle import Bundle, BundleError, Encoder, Port
from hsoftmax.models.arrays import Float32

from .devices import Device, is_out_of_memory
from .encoder_batches import join_states, make_batches
from .encoder_inputs import EncoderError, read_rows
from .sessions import OutOfDeviceMemory, Session, open_encoder_session
from .tokenizer import Tokenizer, TokenizerError, open_tokenizer
from .tokens import TextRow

_SAMPLE_LENGTH = 8  # positions; as many as the exporter's checks have at least


@dataclass(frozen=True)
class LoadedEncoder:
    """An encoder, ready to run, and the tokenizer in front of it, if the bundle has one."""

    description: Encoder
    session: Session
    tokenizer: Tokenizer | None = None


def open_encoder(bundle: Bundle, device: Device | None = None) -> LoadedEncoder | None:
    """Open the bundle's encoder and run it once; return None if the bundle has none.

    Without a device it runs on the CPU, each run in one thread.

    Raises:
        OutOfDeviceMemory: its weights or its first run do not fit the device.
        BundleError: a graph that does not load, does not fit the manifest, or does not run.
    """
    description = bundle.manifest.encoder
    if description is None:
        return None
    session = open_encoder_session(bundle, device)
    encoder = LoadedEncoder(description, session, _open_tokenizer(bundle, description))
    try:
        encode(encoder, sample_inputs(description))
    except Exception as error:
        reason = str(error).splitlines()[0]
        path = bundle.file(description.file)
        kind = OutOfDeviceMemory if is_out_of_memory(error) else BundleError
        raise kind(f"{path}: expected an encoder that runs, got: {reason}") from None
    return encoder


def encode(
    encoder: LoadedEncoder,
    inputs: Mapping[str, Sequence[object]],
    *,
    max_positions: int | None = None,
) -> Float32:
    """Return the states of the rows, [rows, hidden_size], or one row a position for `each`.

    Raises:
        EncoderError: rows that do not fit the inputs, or more positions than `max_positions`.
    """
    description = encoder.description
    rows = read_rows(description, inputs)
    if max_positions is not None and rows.num_positions > max_positions:
        raise EncoderError(
            f"inputs: expected at most {max_positions} positions, got {rows.num_positions}"
        )
    batches = make_batches(description, rows)
    outputs = [encoder.session.run(batch.feeds)[0] for batch in batches]
    return join_states(description, batches, outputs)


def encode_texts(encoder: LoadedEncoder, rows: Sequence[TextRow]) -> Float32:
    """Return the states of texts and lists of words, as `encode` does.

    Raises:
        EncoderError, TokenizerError: a text that the tokenizer or the encoder cannot take.
    """
    assert encoder.tokenizer is not None
    return encode(encoder, encoder.tokenizer.inputs(rows))


def sample_inputs(encoder: Encoder) -> dict[str, list[object]]:
    """Return one row of zeros, with some positions where there are positions."""
    return {port.name: [_zeros(port)] for port in encoder.row_inputs}


def _zeros(port: Port) -> object:
    shape = [size if isinstance(size, int) else _SAMPLE_LENGTH for size in port.shape[1:]]
    return np.zeros(shape, dtype=port.dtype)


def _open_tokenizer(bundle: Bundle, encoder: Encoder) -> Tokenizer | None:
    name = bundle.manifest.tokenizer
    if name is None:
        return None
    try:
        return open_tokenizer(bundle.file(name), encoder)
    except TokenizerError as error:
        raise BundleError(f"{bundle.file(name)}: {error}") from None
